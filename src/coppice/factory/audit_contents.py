# SPDX-License-Identifier: Apache-2.0
"""Checks of the files themselves: who may change them, what runs as root, whether packages are as delivered."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from coppice.factory.audit_model import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.factory.audit_model import Subject
    from coppice.factory.evidence.contents import Digests
    from coppice.factory.evidence.ownership import PackagedFile

_STICKY_FOLDERS = frozenset({"/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/var/lock", "/var/crash"})  # noqa: S108
_NOT_INSTALLED = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/info/", "/usr/share/locale/", "/usr/share/lintian/")
"""Folders that a build may leave out, as dpkg itself is told to."""


def _world_writable(subject: Subject) -> Iterator[tuple[str, str]]:
    for node in subject.tree:
        if node.is_link or not node.mode & stat.S_IWOTH:
            continue
        is_shared = node.is_folder and node.mode & stat.S_ISVTX
        if not (is_shared and (node.path in _STICKY_FOLDERS or node.path in subject.ownership.packages)):
            yield node.path, f"everybody may write to it ({stat.filemode(node.mode)})"


def _setuid(subject: Subject) -> Iterator[tuple[str, str]]:
    for node in subject.tree:
        if node.is_file and node.mode & (stat.S_ISUID | stat.S_ISGID) and node.path not in subject.ownership.packages:
            yield node.path, f"it runs with the rights of its owner, and no package brought it ({oct(node.mode)[-4:]})"
    for path in subject.capable:
        yield path, "it has capabilities, and no package brought it"


def _device_nodes(subject: Subject) -> Iterator[tuple[str, str]]:
    for node in subject.tree:
        kind = stat.S_IFMT(node.mode)
        if kind in {stat.S_IFCHR, stat.S_IFBLK} and not (node.is_link or node.path.startswith("/dev/")):
            yield node.path, "a device outside of /dev: who may open it may have the disk"


def _modified(subject: Subject) -> Iterator[tuple[str, str]]:
    declared = {subject.tree.true_path(file.path) for file in subject.definition.files}
    for delivered in subject.ownership.delivered:
        if delivered.true_path in declared:
            continue
        node = subject.tree.get(delivered.true_path)
        if node is None:
            if not delivered.path.startswith(_NOT_INSTALLED):
                yield delivered.true_path, f"the package {delivered.package} brought it, and it is gone"
        elif not node.is_file:
            yield delivered.true_path, f"the package {delivered.package} brought a file, and it is none any more"
        elif _differs(subject.digests[node.path], delivered):
            yield delivered.true_path, f"it is not what the package {delivered.package} brought"


def _differs(found: Digests, delivered: PackagedFile) -> bool:
    return found.sha256 != delivered.sha256 if delivered.sha256 else found.md5 != delivered.md5


def _unsigned(subject: Subject) -> Iterator[tuple[str, str]]:
    for package in subject.ownership.unsigned:
        yield f"/{package}", f"the package {package} bears no signature"


CONTENT_CHECKS = (
    Check(
        name="world-writable",
        finds="files and folders that everybody may write to, but for `/tmp` and the like",
        reason="Any program could change what others rely on.",
        look=_world_writable,
    ),
    Check(
        name="setuid",
        finds="programs with setuid, setgid or capabilities that no package brought",
        reason="What runs as root must come from somewhere.",
        look=_setuid,
    ),
    Check(
        name="device-node", finds="devices outside of `/dev`", reason="It gives the hardware away.", look=_device_nodes
    ),
    Check(
        name="modified-file",
        finds="files that are not what their package brought, or are gone (documentation may be left out)",
        reason="A package that was changed is another one, and has no name.",
        look=_modified,
    ),
    Check(
        name="unsigned-package",
        finds="RPM packages whose record has no signature; the path is `/` and the package's name",
        reason="Nobody vouches for it.",
        look=_unsigned,
    ),
)
"""What the files are."""
