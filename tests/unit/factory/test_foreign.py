# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.errors import BuildError, ToolMissingError
from coppice.factory.bootstrap import foreign
from coppice.factory.bootstrap.foreign import emulation_rule
from coppice.factory.bootstrap.processors import find_processor

pytestmark = pytest.mark.unit

ARM = find_processor("aarch64")
RULE = r":qemu-aarch64:M::\x7f\x45:\xff\xff:/usr/libexec/qemu-binfmt/aarch64-binfmt-P:OPF"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A machine of another kind with an emulator that it does not know yet."""
    monkeypatch.setattr(foreign, "find_tool", lambda name: f"/usr/bin/{name}")
    (tmp_path / "qemu-aarch64.conf").write_text(f"{RULE}\n")
    return {"machine": "x86_64", "rules": tmp_path, "known": tmp_path / "known"}


def test_an_emulator_is_made_known_as_its_package_says(here):
    assert emulation_rule(ARM, **here) == RULE


def test_a_machine_that_runs_the_programs_itself_needs_no_emulator(here):
    assert not emulation_rule(ARM, **{**here, "machine": "aarch64"})


@pytest.mark.parametrize(
    ("state", "needs"),
    [("enabled", "flags: POF"), ("disabled", "flags: POF"), ("enabled", "flags: PO")],
)
def test_an_emulator_that_this_machine_knows_is_used_as_it_is_known(here, state, needs):
    here["known"].mkdir()
    (here["known"] / "qemu-aarch64").write_text(f"{state}\ninterpreter /usr/bin/qemu\n{needs}\noffset 0\n")
    # Without F, the program would have to lie in the tree.
    is_of_use = (state, needs) == ("enabled", "flags: POF")
    assert bool(emulation_rule(ARM, **here)) is not is_of_use


def test_an_emulator_that_is_not_there_is_said_to_be_missing(here, monkeypatch):
    def missing(name):
        raise ToolMissingError(f"{name} is not installed")

    monkeypatch.setattr(foreign, "find_tool", missing)
    with pytest.raises(ToolMissingError, match="qemu-aarch64-static"):
        emulation_rule(ARM, **here)


@pytest.mark.parametrize(
    "rule",
    [
        "",
        RULE.replace(":OPF", ":OP"),
        RULE.replace("qemu-aarch64", "qemu-arm"),
        f"{RULE}\n{RULE}",
    ],
)
def test_a_rule_that_does_not_do_for_trees_is_refused(here, rule):
    (here["rules"] / "qemu-aarch64.conf").write_text(rule)
    with pytest.raises(BuildError, match="how programs for aarch64") as caught:
        emulation_rule(ARM, **here)
    assert "qemu-user-static" in (caught.value.resolution or "")


def test_no_rule_at_all_is_refused(here):
    (here["rules"] / "qemu-aarch64.conf").unlink()
    with pytest.raises(BuildError, match="how programs for aarch64"):
        emulation_rule(ARM, **here)
