# SPDX-License-Identifier: Apache-2.0
"""The examples are packages of their own, found by their entry points, that pass the suites with an unchanged core."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/pyproject.toml"))
TIMEOUT_SECONDS = 500


def ran(command: list[str], environment: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=dict(environment), cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Mapping[str, str]:
    """Both examples in a directory of their own; the environment in which Python finds them."""
    folder = tmp_path_factory.mktemp("examples")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PIP", "PYTHON"))
    }
    for name in EXAMPLES:
        # Built from a copy: hatchling leaves nothing in the tree, and nothing of the tree is found by accident.
        result = ran(
            [
                sys.executable,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "--quiet",
                "--no-index",
                "--no-deps",
                "--no-build-isolation",
                f"--target={folder / 'site'}",
                str(ROOT / "examples" / name),
            ],
            environment,
            folder,
        )
        assert result.returncode == 0, result.stderr
    return {**environment, "PYTHONPATH": str(folder / "site")}


def test_there_is_an_example_of_each_kind():
    assert EXAMPLES == ["coppice-cloud-example", "coppice-transport-example"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_passes_the_suite_of_its_kind(installed, tmp_path, name):
    result = ran(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error",
            "-p",
            "no:cacheprovider",
            f"--basetemp={tmp_path / 'tests'}",
            str(ROOT / "examples" / name / "tests"),
        ],
        installed,
        tmp_path,
    )
    assert result.returncode == 0, result.stdout[-5000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed.group(1)) > 20
    assert "skipped" not in result.stdout


def test_nothing_of_the_core_knows_the_examples():
    known = re.compile(r"coppice_(cloud|transport)_example|\bwebroot\b|open_shelf")
    for path in sorted((ROOT / "src").rglob("*.py")):
        assert known.search(path.read_text()) is None, path


def test_the_command_line_finds_an_installed_cloud(installed, tmp_path):
    settings = tmp_path / "coppice.toml"
    settings.write_text(f'[clouds.shelf]\ndriver = "shelf"\nsite = "test"\npath = "{tmp_path / "shelf"}"\n')
    result = ran(
        [sys.executable, "-m", "coppice", "--json", "--config", str(settings), "cloud", "check", "shelf"],
        {**installed, "COPPICE_STATE_DIRECTORY": str(tmp_path / "state")},
        tmp_path,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    assert '"shelf"' in json.dumps(json.loads(result.stdout))
