# SPDX-License-Identifier: Apache-2.0
"""What is looked for in one file system of a guest: its system, its kernels, cloud-init, and for which processor."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.conversion.guest.kernels import HEAD_BYTES, kernel_of, program_architecture
from coppice.conversion.guest.model import GuestFact, Kernel, UnknownFact
from coppice.conversion.guest.os_release import MOST_BYTES, read_os_release
from coppice.conversion.guest.tree import NodeKind, find
from coppice.conversion.guest.unknown import NotFoundOutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.conversion.guest.model import OsRelease
    from coppice.conversion.guest.tree import Tree

MOST_KERNELS = 8
MOST_RELEASES = 32
WANTED = (
    ("etc", "os-release"),
    ("etc", "cloud", r"cloud\.cfg"),
    ("usr", "lib", "os-release"),
    ("usr", "bin", "(cloud-init|bash|dash|busybox)"),
    ("usr", "lib", "systemd", "systemd"),
    ("usr", "lib", "modules", "[A-Za-z0-9._+~-]+", "vmlinuz"),
    ("boot", "(vmlinuz|vmlinux|Image|bzImage)[A-Za-z0-9._+~-]*"),
)
"""What is looked at, for file systems of which only some files can be brought; parts are regular expressions."""
_KERNEL_NAME = re.compile(r"(vmlinuz|vmlinux|image|bzimage)([-.][A-Za-z0-9._+~-]{1,200})?", re.IGNORECASE)
_RELEASE_NAME = re.compile(r"[A-Za-z0-9._+~-]{1,200}")
_RESCUE = re.compile(r"rescue", re.IGNORECASE)
_RELEASES = ("/etc/os-release", "/usr/lib/os-release")
_CLOUD_INIT = ("/usr/bin/cloud-init", "/etc/cloud/cloud.cfg")
_PROGRAMS = ("/usr/lib/systemd/systemd", "/usr/bin/bash", "/usr/bin/dash", "/bin/busybox")
_PROGRAM_BYTES = 4096


@dataclass(slots=True)
class Survey:
    """What was found in one file system.

    Attributes:
        is_root: Whether a guest's first directory is here.
        release: Its os-release.
        kernels: What looks like a kernel.
        has_cloud_init: Whether cloud-init is installed; None: nothing is installed here, or it could not be found out.
        architecture: Of its programs.
        unknown: What could not be found out, and why.
        notes: What is odd.
    """

    is_root: bool = False
    release: OsRelease | None = None
    kernels: list[Kernel] = field(default_factory=list)
    has_cloud_init: bool | None = None
    architecture: str | None = None
    unknown: list[UnknownFact] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def survey(tree: Tree) -> Survey:
    """Look at one file system.

    Raises:
        NotFoundOutError: Not even its first directory can be read.
    """
    found = Survey()
    names = tree.children(tree.root)
    found.is_root = "etc" in names and "usr" in names
    _try(found, GuestFact.KERNELS, lambda: _kernels(tree, found))
    if found.is_root:
        _try(found, GuestFact.OPERATING_SYSTEM, lambda: _release(tree, found))
        _try(found, GuestFact.CLOUD_INIT, lambda: _cloud_init(tree, found))
        _try(found, GuestFact.ARCHITECTURE, lambda: _programs(tree, found))
    return found


def _try(found: Survey, fact: GuestFact, look: Callable[[], None]) -> None:
    try:
        look()
    except NotFoundOutError as problem:
        found.unknown.append(UnknownFact(fact=fact, reason=str(problem)))


def _release(tree: Tree, found: Survey) -> None:
    for path in _RELEASES:
        node = find(tree, path)
        if node is not None and node.kind is NodeKind.FILE:
            found.release, notes = read_os_release(tree.head(node, MOST_BYTES + 1))
            found.notes += notes
            return
    folder = find(tree, "/etc")
    if folder is not None and folder.kind is NodeKind.DIRECTORY and "os-release" in tree.children(folder):
        raise NotFoundOutError("/etc/os-release leads to what is not in its file system")


def _cloud_init(tree: Tree, found: Survey) -> None:
    found.has_cloud_init = any(
        (node := find(tree, path)) is not None and node.kind is NodeKind.FILE for path in _CLOUD_INIT
    )


def _programs(tree: Tree, found: Survey) -> None:
    for path in _PROGRAMS:
        node = find(tree, path)
        if node is not None and node.kind is NodeKind.FILE:
            found.architecture = program_architecture(tree.head(node, _PROGRAM_BYTES))
            if found.architecture is not None:
                return


def _kernels(tree: Tree, found: Survey) -> None:
    places = _kernel_paths(tree)
    if len(places) > MOST_KERNELS:
        found.notes.append(f"there are {len(places)} kernels, of which {MOST_KERNELS} were looked at")
    for path in places[:MOST_KERNELS]:
        node = find(tree, path)
        if node is None or node.kind is not NodeKind.FILE:
            continue
        kernel = kernel_of(path, tree.head(node, HEAD_BYTES))
        if kernel is None:
            reason = f"{path} is called a kernel, and is of no form that is known"
            found.unknown.append(UnknownFact(fact=GuestFact.KERNELS, reason=reason))
        else:
            found.kernels.append(kernel)


def _kernel_paths(tree: Tree) -> list[str]:
    """Return where kernels are: of one installed twice, where the boot loader reads it."""
    paths = []
    for folder in ("/", "/boot"):
        place = find(tree, folder)
        if place is not None and place.kind is NodeKind.DIRECTORY:
            names = sorted(
                name
                for name, node in tree.children(place).items()
                if node.kind is NodeKind.FILE and _KERNEL_NAME.fullmatch(name) and not _RESCUE.search(name)
            )
            paths += [f"{folder.rstrip('/')}/{name}" for name in names]
    modules = None if paths else find(tree, "/usr/lib/modules")
    if modules is not None and modules.kind is NodeKind.DIRECTORY:
        for name in sorted(tree.children(modules))[:MOST_RELEASES]:
            path = f"/usr/lib/modules/{name}/vmlinuz"
            if _RELEASE_NAME.fullmatch(name) and find(tree, path) is not None:
                paths.append(path)
    return paths
