# SPDX-License-Identifier: Apache-2.0
"""Make the file tree of an appliance, as a tar file, by mmdebstrap: from nothing, or from a parent's tree.

Neither needs loop devices or mounts outside mmdebstrap's own namespace. As root it runs directly, otherwise in a user
namespace (which needs ``/etc/subuid``, and Debian's package ``uidmap``).
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import BuildError, NoSpaceError, ToolFailedError, ToolTimeoutError
from coppice.factory.bootstrap.suites import BASE_PACKAGES
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from coppice.factory.bootstrap.suites import Suite

BIOS_CORE = "/boot/grub/i386-pc/core.img"
BIOS_BOOT = "/usr/lib/grub/i386-pc/boot.img"
EFI_CORE = "/boot/grub/x86_64-efi/core.efi"
ROOT_PARTITION = 3
_NAMESPACE_SECONDS = 30.0

_MODULES = (
    "normal",
    "configfile",
    "linux",
    "part_gpt",
    "part_msdos",
    "ext2",
    "fat",
    "search",
    "search_fs_uuid",
    "search_label",
    "search_fs_file",
    "test",
    "true",
    "echo",
    "sleep",
    "loadenv",
    "minicmd",
    "halt",
    "reboot",
    "serial",
    "terminal",
    "gzio",
)
_BIOS_MODULES = ("biosdisk", *_MODULES)
_EFI_MODULES = ("all_video", *_MODULES)
_DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
)
_APT = 'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes -oDPkg::Chroot-Directory="$1"'


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeMaker:
    """Makes trees of one release.

    Attributes:
        suite: The release.
        sources: Lines of ``sources.list``; none: mmdebstrap's own.
        work: An empty directory with room for a tree (1 GiB).
        timeout_seconds: For one tree.
        on_line: Called with each line of progress.
    """

    suite: Suite
    sources: tuple[str, ...]
    work: Path
    timeout_seconds: float
    on_line: Callable[[str], None]

    def make_parent(self, tar: Path) -> None:
        """Write a tree with the base packages, and the boot loader's images, to ``tar``.

        Raises:
            BuildError: It could not be made.
        """
        self._mmdebstrap(
            tar,
            "--variant=minbase",
            f"--include={','.join(BASE_PACKAGES)}",
            *(f"--customize-hook={hook}" for hook in _grub_hooks()),
        )

    def make_child(self, parent: Path, packages: Sequence[str], tar: Path) -> None:
        """Write the tree of ``parent``, with its packages brought up to date and ``packages`` added, to ``tar``.

        Raises:
            BuildError: It could not be made.
        """
        hooks = [f"{_APT} dist-upgrade"]
        if packages:
            hooks.append(f"{_APT} install -- {shlex.join(packages)}")
        self._mmdebstrap(
            tar,
            "--variant=custom",
            f"--setup-hook=tar-in {shlex.quote(str(parent))} /",
            *(f"--customize-hook={hook}" for hook in hooks),
        )

    def _mmdebstrap(self, tar: Path, *options: str) -> None:
        as_root = os.geteuid() == 0
        namespace = _own_namespace() if as_root else ()
        argv = [
            *namespace,
            "mmdebstrap",
            f"--mode={'root' if as_root else 'unshare'}",
            "--format=tar",
            "--architectures=amd64",
            "--components=main",
            *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
            *options,
            self.suite.name,
            str(tar),
            *self.sources,
        ]
        environment = {"TMPDIR": str(self.work), "SOURCE_DATE_EPOCH": str(self.suite.epoch)}
        try:
            run(argv, timeout_seconds=self.timeout_seconds, env=environment, on_output=_by_line(self.on_line))
        except (ToolFailedError, ToolTimeoutError) as problem:
            if "No space left on device" in (problem.details or ""):
                raise NoSpaceError(
                    f"no space left while bootstrapping {self.suite.name} in {self.work}",
                    details=problem.details,
                    resolution="Free about 3 GiB there, or set another work directory, then run again.",
                ) from problem
            raise BuildError(
                f"bootstrapping {self.suite.name} failed: {problem.message}",
                details=problem.details,
                resolution="The lines above say why: a package that does not exist, a mirror that cannot be reached …",
            ) from problem


def _own_namespace() -> tuple[str, ...]:
    # As root, mmdebstrap mounts in the namespace that it finds. In one of its own, nothing of that is ever seen
    # outside, and the kernel unmounts it all when the last of its processes ends, whatever ends it.
    private = ("unshare", "--mount", "--propagation=private")
    try:
        run([*private, "true"], timeout_seconds=_NAMESPACE_SECONDS)
    except ToolFailedError:
        # In a chroot, the root directory is no mount point, and its propagation cannot be set.
        return ("unshare", "--mount", "--propagation=unchanged")
    return private


def _grub_hooks() -> tuple[str, ...]:
    # The tree's own grub-mkimage fits the tree's own modules, whatever release this machine runs. A prefix without a
    # disk means the disk that the firmware started from, so another disk with the same file system cannot interfere.
    prefix = f"(,gpt{ROOT_PARTITION})/boot/grub"

    def mkimage(platform: str, output: str, modules: Sequence[str]) -> str:
        words = ("grub-mkimage", "-O", platform, "-o", output, "-p", prefix, *modules)
        return f'mkdir -p "$1"{os.path.dirname(output)} && chroot "$1" {shlex.join(words)}'  # noqa: PTH120 - a guest's path

    return (mkimage("i386-pc", BIOS_CORE, _BIOS_MODULES), mkimage("x86_64-efi", EFI_CORE, _EFI_MODULES))


def _by_line(tell: Callable[[str], None]) -> Callable[[str], None]:
    rest = ""

    def take(piece: str) -> None:
        nonlocal rest
        *lines, rest = (rest + piece).split("\n")
        rest = rest[-4096:]
        for line in lines:
            # Bars redraw their line with carriage returns: the last state is the news.
            last = line.rstrip("\r").rpartition("\r")[2].strip()
            if last:
                tell(last)

    return take
