# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import pytest

from coppice.errors import BuildError
from coppice.monitor import SilentMonitor
from coppice.workflows import demonstration as module
from coppice.workflows.demonstration import Demonstration

pytestmark = pytest.mark.unit


def test_a_definition_that_is_built_upon_another_finds_it(tmp_path, monkeypatch):
    asked = []

    def build(definition, *, find, **_others):
        asked.append(find(definition.parent))
        message = "that is all"
        raise BuildError(message)

    monkeypatch.setattr(module, "build_appliance", build)
    child, parent = SimpleNamespace(name="web", parent="base"), SimpleNamespace(name="base", parent=None)
    shown = Demonstration(tmp_path, child, monitor=SilentMonitor(), find={"base": parent}.__getitem__)
    shown._scene = SimpleNamespace(publisher_settings=None, publisher_database=None, clock=None)
    with pytest.raises(BuildError, match="that is all"):
        shown._build("1", child)
    assert asked == [parent]
