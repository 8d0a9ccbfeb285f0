# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import pytest

from coppice.errors import ProvisionError, ToolFailedError
from coppice.factory.provision import borrowed
from coppice.factory.provision.borrowed import Borrowing

pytestmark = pytest.mark.unit


class Tree:
    """A tree with packages, and a package manager that does with it what it is told."""

    root = "/tree"
    epoch = 1
    brings = {"puppet": {"puppet", "ruby"}, "ansible": {"ansible", "python3"}}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        self.installed = {"apt", "python3"}
        self.accounts = {"root"}
        self.overrides = {"/usr/bin/su"}
        self.auto = set()
        self.needed = set()
        self.dragged = set()
        self.ran = []

    def tell(self, piece):
        self.ran.append(piece)

    def ask(self, program, *words, ok=(0,)):
        if program == "dpkg-query":
            rows = [f"installed {name}" for name in sorted(self.installed)] + ["config-files gone"]
            return SimpleNamespace(text=lambda: "\n".join(rows))
        if program == "getent":
            return SimpleNamespace(text=lambda: "\n".join(f"{name}:x:1" for name in sorted(self.accounts)))
        if program == "dpkg-statoverride":
            if words[0] == "--remove":
                self.overrides -= {words[1]}
            return SimpleNamespace(text=lambda: "".join(f"puppet root 750 {path}\n" for path in self.overrides))
        assert program in {"userdel", "groupdel"}
        assert not self.overrides & {"/var/cache/puppet"}, "dpkg would refuse to work"
        self.ran.append(f"{program} {words[-1]}")
        self.accounts -= {words[-1]} if program == "groupdel" else set()
        return None

    def run(self, argv, **_):
        program, chroot, *words = argv
        assert chroot == "-oDPkg::Chroot-Directory=/tree"
        names = set(words[words.index("--") + 1 :]) if "--" in words else set()
        said = ""
        if program == "apt-mark":
            self.auto |= names
        elif "install" in words:
            for name in names:
                self.installed |= self.brings[name]
            if "puppet" in names:
                self.accounts.add("puppet")
                self.overrides.add("/var/cache/puppet")
        elif "autoremove" in words:
            gone = {each for name in self.auto for each in self.brings[name]} - self.needed - {"python3"}
            said = "".join(f"Remv {name} [1]\n" for name in sorted(gone | {"old-kernel"}))
        elif "--simulate" in words:
            said = "".join(f"Purg {name}:amd64 [1]\n" for name in sorted(names | self.dragged))
        else:
            self.installed -= names
        return SimpleNamespace(text=lambda: said)


@pytest.fixture
def tree(monkeypatch):
    found = Tree()
    monkeypatch.setattr(borrowed, "run", found.run)
    return found


def borrow(tree, temporary, staying=()):
    return Borrowing(cage=tree, apt_config="/apt.conf").borrowed(set(temporary), set(staying))


def test_exactly_what_was_added_is_removed_with_the_accounts_that_it_made(tree):
    borrowing = borrow(tree, {"puppet"})
    assert tree.installed == {"apt", "python3", "puppet", "ruby"}
    borrowing.give_back()
    assert tree.installed == {"apt", "python3"}
    assert tree.ran[-2:] == ["userdel puppet", "groupdel puppet"]
    assert tree.overrides == {"/usr/bin/su"}


def test_an_account_that_the_definition_wants_stays(tree):
    borrow(tree, {"puppet"}).give_back(["puppet"])
    assert tree.accounts == {"root", "puppet"}


def test_what_was_there_before_stays(tree):
    tree.installed |= {"puppet", "ruby"}
    borrow(tree, {"puppet"}).give_back()
    assert tree.installed == {"apt", "python3", "puppet", "ruby"}


def test_what_something_else_needs_by_now_stays(tree):
    borrowing = borrow(tree, {"puppet"})
    tree.needed = {"ruby"}
    borrowing.give_back()
    assert tree.installed == {"apt", "python3", "ruby"}
    assert "puppet" in tree.accounts


def test_what_is_to_stay_stays(tree):
    borrow(tree, {"puppet"}, {"ansible"}).give_back()
    assert tree.installed == {"apt", "python3", "ansible"}


def test_nothing_else_is_taken_along(tree):
    borrowing = borrow(tree, {"puppet"})
    tree.dragged = {"apt"}
    with pytest.raises(ProvisionError, match="without apt"):
        borrowing.give_back()
    assert "apt" in tree.installed


def test_a_package_that_cannot_be_had_is_told_with_what_was_said(tree, monkeypatch):
    def fail(argv, **_):
        raise ToolFailedError("apt-get ended with status 100", details="E: Unable to locate package puppet")

    monkeypatch.setattr(borrowed, "run", fail)
    with pytest.raises(ProvisionError, match="status 100") as caught:
        borrow(tree, {"puppet"})
    assert "Unable to locate" in (caught.value.details or "")


def test_without_a_package_manager_only_what_is_there_can_be_used(tree):
    with pytest.raises(ProvisionError, match="no package manager"):
        Borrowing(cage=tree, apt_config=None).borrowed({"puppet"}, set())
    tree.installed.add("puppet")
    Borrowing(cage=tree, apt_config=None).borrowed({"puppet"}, set()).give_back()
    assert "puppet" in tree.installed
