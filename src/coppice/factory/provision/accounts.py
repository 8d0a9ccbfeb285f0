# SPDX-License-Identifier: Apache-2.0
"""Accounts and files of a definition in a tree, made by the tree's own programs, so that its own names count."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from coppice.definition.model import DefinedFile
from coppice.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.definition.model import DefinedUser
    from coppice.factory.provision.cage import TreeCage

_NOT_FOUND = 2
_SUDOERS = "/etc/sudoers.d/90-coppice-"


def make_users(cage: TreeCage, users: Iterable[DefinedUser]) -> None:
    """Make ``users``, or change those that are there; none gets a password.

    Raises:
        DefinitionError: A shell is not there.
        BuildError: One could not be made.
    """
    for user in users:
        if cage.ask("test", "-x", user.shell, ok=(0, 1)).returncode:
            raise DefinitionError(
                f"the account {user.name} cannot have the shell {user.shell}, which is not there",
                resolution="Add the package that has it to build.packages, or choose another shell.",
            )
        for group in user.groups:
            if not _ids(cage, "group", [group]):
                cage.ask("groupadd", "--system", "--", group)
        _make_user(cage, user)


def _make_user(cage: TreeCage, user: DefinedUser) -> None:
    words = ["--shell", user.shell, "--comment", user.comment]
    if _ids(cage, "passwd", [user.name]):
        words += ["--home", user.home] if user.home is not None else []
        words += ["--append", "--groups", ",".join(user.groups)] if user.groups else []
        cage.ask("usermod", *words, "--", user.name)
        cage.ask("usermod", "--lock", "--", user.name)
        return
    words += ["--home-dir", user.home or f"/home/{user.name}"]
    words += ["--groups", ",".join(user.groups)] if user.groups else []
    words += ["--system", "--no-create-home"] if user.is_system else ["--create-home"]
    words += ["--gid", user.name] if _ids(cage, "group", [user.name]) else ["--user-group"]
    # Without a password it is locked from the start.
    cage.ask("useradd", *words, "--", user.name)


def forbid_sudo(cage: TreeCage, names: Iterable[str]) -> None:
    """Take back what `sudo_rules` gave to ``names``.

    Raises:
        BuildError: It could not be taken back.
    """
    for name in names:
        cage.ask("rm", "-f", "--", f"{_SUDOERS}{name}")


def sudo_rules(users: Iterable[DefinedUser]) -> tuple[DefinedFile, ...]:
    """Return the files that let those of ``users`` do everything who may."""
    return tuple(
        DefinedFile(
            path=f"{_SUDOERS}{user.name}", content=f"{user.name} ALL=(ALL:ALL) NOPASSWD:ALL\n".encode(), mode=0o440
        )
        for user in users
        if user.sudo
    )


def lay_files(cage: TreeCage, files: Iterable[DefinedFile]) -> None:
    """Lay ``files`` into the tree, with the folders that they need.

    Raises:
        DefinitionError: An owner or a group is not there.
        BuildError: One could not be written.
    """
    wanted = sorted(files, key=lambda file: file.path)
    if not wanted:
        return
    owners = _ids(cage, "passwd", sorted({file.owner for file in wanted}))
    groups = _ids(cage, "group", sorted({file.group for file in wanted}))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in wanted:
            for name, known in ((file.owner, owners), (file.group, groups)):
                if name not in known:
                    raise DefinitionError(
                        f"the file {file.path} cannot belong to {name}, which is not there",
                        resolution="Make it by [[user]], or add the package that brings it to build.packages.",
                    )
            entry = tarfile.TarInfo(file.path.removeprefix("/"))
            entry.size, entry.mode, entry.mtime = len(file.content), file.mode, cage.epoch
            entry.uid, entry.gid = owners[file.owner], groups[file.group]
            tar.addfile(entry, io.BytesIO(file.content))
    # The tree's links to folders (/lib, /bin) are followed inside of the tree.
    words = ("--extract", "--file=-", "--directory=/", "--numeric-owner", "--same-owner", "--preserve-permissions")
    cage.ask("tar", *words, input_bytes=archive.getvalue())


def _ids(cage: TreeCage, database: str, names: list[str]) -> dict[str, int]:
    said = cage.ask("getent", database, "--", *names, ok=(0, _NOT_FOUND)).text()
    rows = (line.split(":") for line in said.splitlines())
    return {row[0]: int(row[2]) for row in rows if row[0] in names}
