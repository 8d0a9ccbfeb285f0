# SPDX-License-Identifier: Apache-2.0
"""Do in a tree what a definition says beside its packages: accounts, files, provisioners, services, in this order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coppice.errors import ProvisionError, ToolFailedError, ToolTimeoutError
from coppice.factory.provision.accounts import forbid_sudo, lay_files, make_users, sudo_rules
from coppice.factory.provision.borrowed import Borrowing
from coppice.factory.provision.cage import FIRST_PROCESS, MATERIALS, MAX_LOG_BYTES, SEEN, FloodError, TreeCage
from coppice.factory.provision.commands import command_of, package_of
from coppice.factory.provision.plan import make_plan
from coppice.factory.provision.rpm_borrowed import RpmBorrowing
from coppice.factory.provision.units import switch_units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from coppice.definition.model import Definition, Provisioner

_TAIL_CHARACTERS = 4000


def provision(
    tree_root: Path,
    definition: Definition,
    *,
    parent: Definition | None,
    materials: Path,
    apt_config: str | None,
    epoch: int,
    tell: Callable[[str], None],
    dnf: tuple[str | Path, ...] = (),
) -> None:
    """Do in the tree at ``tree_root`` what ``definition`` says and what its parent's tree does not have yet.

    This process is root, of this machine or of a user namespace, and has the tree's packages installed already.

    Args:
        tree_root: Where the tree is.
        definition: What is built.
        parent: What the tree was built for before; None: it has packages alone.
        materials: What `lay_materials` wrote.
        apt_config: What apt of this machine reads to work on the tree; None: provisioners must find what they need.
        epoch: What is made in the tree says that it is from then.
        tell: Gets what is done, and what programs say, as it comes.
        dnf: dnf of this machine, with all that it needs to work on the tree, where that is of the RPM family.

    Raises:
        DefinitionError: It names what is not in the tree: an owner, a shell, a unit.
        ProvisionError: A provisioner failed, hung or flooded its log.
        BuildError: Something else could not be done.
        ToolMissingError: ``bwrap`` is not installed.
    """
    plan = make_plan(definition, parent)
    cage = TreeCage(root=tree_root, materials=materials, epoch=epoch, tell=tell)
    borrowing: Borrowing | RpmBorrowing = Borrowing(cage=cage, apt_config=apt_config)
    if dnf:
        borrowing = RpmBorrowing(cage=cage, dnf=dnf)
    if plan.provisioners:
        borrowing = borrowing.borrowed(
            _packages(plan.provisioners, definition.suite, stays=False),
            _packages(plan.provisioners, definition.suite, stays=True),
        )
    make_users(cage, plan.users)
    forbid_sudo(cage, plan.no_more_sudo)
    lay_files(cage, (*sudo_rules(plan.users), *plan.files))
    for provisioner in plan.provisioners:
        _perform(cage, provisioner, definition)
    borrowing.give_back([name for user in definition.users for name in (user.name, *user.groups)])
    switch_units(cage, plan.services, plan.released)


def folder_name(definition: Definition, provisioner: Provisioner) -> str:
    """Return the name of the folder that has the files of ``provisioner``."""
    position = [each.name for each in definition.provisioners].index(provisioner.name)
    return f"{position:03d}-{provisioner.name}"


def lay_materials(definition: Definition, into: Path) -> None:
    """Write the files of every provisioner of ``definition`` into the new directory ``into``, to be read by all.

    Raises:
        OSError: They could not be written.
        DefinitionError: A value in a provisioner cannot be what it says.
    """
    seen = into / SEEN
    seen.mkdir(parents=True)
    (into / FIRST_PROCESS).write_text("systemd\n", encoding="ascii")
    for provisioner in definition.provisioners:
        name = folder_name(definition, provisioner)
        folder = seen / name
        folder.mkdir()
        for path, content in sorted(provisioner.files.items()):
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        variables = command_of(provisioner, definition, f"{MATERIALS}/{name}").variables_file
        if variables is not None:
            (seen / f"{name}.json").write_bytes(variables)
    # Whatever this process's umask is. Scripts call each other.
    for place in (into, *into.rglob("*")):
        runs = place.is_dir() or place.read_bytes().startswith(b"#!")
        place.chmod(0o755 if runs else 0o644)


def _packages(provisioners: Iterable[Provisioner], suite: str, *, stays: bool) -> frozenset[str]:
    found = (package_of(each.kind, suite) for each in provisioners if each.stays is stays)
    return frozenset(package for package in found if package is not None)


def _perform(cage: TreeCage, provisioner: Provisioner, definition: Definition) -> None:
    folder = f"{MATERIALS}/{folder_name(definition, provisioner)}"
    command = command_of(provisioner, definition, folder)
    what = f"the provisioner {provisioner.name}"
    cage.tell(f"\n== {provisioner.kind} {provisioner.name}: {provisioner.entry}\n")
    tail = _Tail(cage.tell)
    own = TreeCage(root=cage.root, materials=cage.materials, epoch=cage.epoch, tell=tail.take)
    try:
        said = own.perform(
            command.words,
            environment=command.environment,
            folder=folder,
            timeout_seconds=provisioner.timeout_seconds,
            ok=command.ok,
        )
    except ToolFailedError as problem:
        raise _failure(f"{what} failed: {_how(problem)}", tail, "correct what it runs") from problem
    except ToolTimeoutError as problem:
        seconds = f"{provisioner.timeout_seconds:.0f} s"
        raise _failure(
            f"{what} did not end within {seconds}", tail, "see what it waits for, or set timeout"
        ) from problem
    except FloodError as problem:
        size = f"{MAX_LOG_BYTES // 1024 // 1024} MiB"
        raise _failure(f"{what} said more than {size}", tail, "have it say less") from problem
    if command.proof and not re.search(f"^{command.proof}", said.text(), flags=re.MULTILINE):
        raise _failure(f"{what} did nothing", tail, "have it work on localhost (`hosts: all`)")


def _how(problem: ToolFailedError) -> str:
    status = problem.context.get("returncode")
    return problem.message if status is None else f"it ended with status {status}"


def _failure(message: str, tail: _Tail, advice: str) -> ProvisionError:
    return ProvisionError(
        message, details=f"Its log ends with:\n{tail.text()}", resolution=f"Read the end of its log and {advice}."
    )


class _Tail:
    """Keeps the end of what is told, and tells it on."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._end = ""

    def take(self, piece: str) -> None:
        self._end = (self._end + piece)[-_TAIL_CHARACTERS:]
        self._tell(piece)

    def text(self) -> str:
        """Return whole lines of the end."""
        end = self._end.partition("\n")[2] if len(self._end) == _TAIL_CHARACTERS else self._end
        return end.strip() or "(it said nothing)"
