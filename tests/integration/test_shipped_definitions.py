# SPDX-License-Identifier: Apache-2.0
"""The shell of the shipped definitions, as the shell itself reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from coppice.definition.read import find_definitions

pytestmark = pytest.mark.integration

SHIPPED = Path(__file__).parents[2] / "definitions"


def test_every_script_of_the_shipped_definitions_is_one_that_a_shell_can_read():
    scripts = {}
    for definition in find_definitions(SHIPPED):
        scripts |= {(definition.name, each.name): each.script for each in definition.tests}
        scripts |= {(definition.name, each.name): each.files[each.entry] for each in definition.provisioners}
        scripts |= {
            (definition.name, each.path): each.content for each in definition.files if each.content[:2] == b"#!"
        }
    assert len(scripts) > 20
    for name, script in scripts.items():
        done = subprocess.run(["sh", "-n"], input=script, capture_output=True, check=False, timeout=30)
        assert (done.returncode, done.stderr) == (0, b""), name
