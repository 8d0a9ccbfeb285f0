# SPDX-License-Identifier: Apache-2.0
"""Make the file tree of an appliance by mmdebstrap: from nothing, or as a layer over the tree of its parent.

It all happens in namespaces of its own: what is mounted there is never seen outside, and the kernel ends and unmounts
everything when this process dies. As root that needs nothing else; otherwise it needs a user namespace (`/etc/subuid`,
and Debian's package ``uidmap``).
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, NoSpaceError, ToolFailedError, ToolTimeoutError
from coppice.factory.bootstrap.foreign import emulation_rule, is_foreign
from coppice.factory.bootstrap.inside import INDEX, Order
from coppice.factory.bootstrap.processors import BIOS_CORE
from coppice.factory.bootstrap.room import room_in_memory
from coppice.factory.bootstrap.shortcuts import AFTER, BEFORE
from coppice.factory.bootstrap.suites import Family
from coppice.factory.bootstrap.twins import extraction, find_home, hiding, showing
from coppice.process import run
from coppice.process.own_users import among_own_users

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coppice.factory.bootstrap.processors import Processor
    from coppice.factory.bootstrap.suites import Suite
    from coppice.factory.bootstrap.twins import Home

ROOT_PARTITION = 3
_NAMESPACE_SECONDS = 30.0
_INSIDE = "coppice.factory.bootstrap.inside"
# tar writes what still goes onto a disk that gets full, and then says only that.
_FULL = re.compile(r"No space left on device|Wrote only \d+ of \d+ bytes")
_KILLED = re.compile(
    r"(?:ended by|died from|received|killed by) signal(?:: | )(?:9\b|KILL)|Cannot allocate memory|Out of memory"
)
_LATE = " did not end within "
_LONGEST_COMPLAINT = 300

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
BIOS_MODULES = ("biosdisk", *_MODULES)
EFI_MODULES = ("all_video", *_MODULES)
# What mmdebstrap would check, empty or remove for our sake, and what is none of its business here: the caches are
# mounted over the tree, and the tree of a child is there already.
# Whether programs for other processors run here is looked at before it; and which keys a source's own line should name
# is of no use to those who give whole lines.
_SKIPPED = (
    "check/empty",
    "check/qemu",
    "check/signed-by",
    "download/empty",
    "essential/unlink",
    "cleanup/apt",
    "cleanup/tmp",
    "cleanup/run",
)
_APT = 'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes -oDPkg::Chroot-Directory="$1"'
# Kernel packages make an initial file system each time that they are configured, and their triggers once more. It is
# made once, at the end, for each kernel that has none.
_INITIAL_FILE_SYSTEMS = """\
for kernel in "$1"/boot/vmlinuz-*; do
  version="${kernel#"$1"/boot/vmlinuz-}"
  [ ! -e "$1/boot/initrd.img-$version" ] || continue
  chroot "$1" update-initramfs -c -k "$version" || exit 1
  [ ! -x "$1/usr/bin/linux-update-symlinks" ] ||
    env --unset=INITRD chroot "$1" linux-update-symlinks install "$version" "/boot/vmlinuz-$version" || exit 1
done"""
# Debian's kernels keep these two links by the program above; Ubuntu's keep them in /boot.
_LINKS = """\
for link in vmlinuz initrd.img; do
  [ -L "$1/$link" ] || ln -s "boot/$link" "$1/$link" || exit 1
done"""
_RESOLVER = 'chroot "$1" systemctl enable systemd-resolved'


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was made.

    Attributes:
        tar: The tree, or what a child changed in its parent's.
        indices: Digests (sha256) of the repositories' signed indices, by the names that apt keeps them under.
    """

    tar: Path
    indices: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeMaker:
    """Makes trees of one release.

    Attributes:
        suite: The release.
        sources: Lines of ``sources.list``.
        work: An empty directory with room for a tree (1 GiB).
        timeout_seconds: For one tree.
        on_output: Called with what the programs say, as it comes.
        keyring: Keys that sign the sources; None: the distribution's.
        packages: A directory where packages are kept for other builds; None: they are not.
        lists: Likewise for the indices of these sources.
        root_modules: What GRUB needs beside ext4 to read the root of what is built.
    """

    suite: Suite
    sources: tuple[str, ...]
    work: Path
    timeout_seconds: float
    on_output: Callable[[str], None]
    keyring: Path | None = None
    packages: Path | None = None
    lists: Path | None = None
    root_modules: tuple[str, ...] = ()

    def make_base(self) -> Made:
        """Make a tree with the base packages, and the boot loader's images.

        Raises:
            BuildError: It could not be made.
        """
        hooks = [*AFTER, _INITIAL_FILE_SYSTEMS, *_grub_hooks(self.suite.processor)]
        show = () if self._home is None else (showing(self._home),)
        if self._home is not None:
            # Once more: the own ones of some came with the other packages.
            hooks = [*show, *hooks, hiding(self._home)]
        if self.suite.family is Family.UBUNTU:
            hooks.append(_LINKS)
        if not self.suite.has_resolved:
            hooks.append(_RESOLVER)
        return self._make(
            (),
            "--variant=minbase",
            f"--include={','.join(self.suite.base_packages)}",
            *(f"--extract-hook={hook}" for hook in BEFORE),
            *(f"--essential-hook={hook}" for hook in show),
            *(f"--customize-hook={hook}" for hook in hooks),
        )

    def make_child(
        self,
        layers: Sequence[Path],
        packages: Sequence[str],
        provision: str | None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> Made:
        """Make the layer over ``layers`` in which their packages are brought up to date and ``packages`` are added.

        Args:
            layers: Of the parent's tree, the first first.
            packages: To be installed, where they are not.
            provision: A hook of mmdebstrap that does the rest; None: there is none.
            on_failure: Called when it failed, before anything else is said of it.

        Raises:
            BuildError: It could not be made.
        """
        # Both in one go: apt reads all that there is each time.
        hooks = [f"{_APT} dist-upgrade -- {shlex.join(packages)}"]
        if provision is not None:
            hooks.append(provision)
        # The boot loader may be newer now. Where it is not, the same bytes come out, and nothing changes.
        hooks += [_INITIAL_FILE_SYSTEMS, *_grub_hooks(self.suite.processor, self.root_modules)]
        return self._make(
            tuple(str(layer) for layer in layers),
            "--variant=custom",
            *(f"--customize-hook={hook}" for hook in hooks),
            on_failure=on_failure,
        )

    @property
    def _home(self) -> Home | None:
        """This machine, where its own programs can do for some of a base's emulated ones; None: they cannot."""
        return find_home(platform.machine()) if is_foreign(self.suite.processor) else None

    def _make(self, layers: tuple[str, ...], *options: str, on_failure: Callable[[], None] = lambda: None) -> Made:
        emulator = emulation_rule(self.suite.processor)
        # An emulator is made known in a user namespace alone, of which root then has one, too.
        is_mapped = os.geteuid() != 0 or bool(emulator)
        # An ordinary user could not remove what other users of the namespace left on the disk.
        memory_bytes = room_in_memory(always=is_mapped)
        order = self._order(layers, options, is_mapped=is_mapped, memory_bytes=memory_bytes, emulator=emulator)
        try:
            try:
                self._carry_out(order)
            except ToolFailedError as problem:
                if not memory_bytes or is_mapped or not _FULL.search(problem.details or ""):
                    raise
                self.on_output("The tree does not fit into the memory; it is made on the disk.\n")
                self._carry_out(replace(order, memory_bytes=0))
        except (ToolFailedError, ToolTimeoutError) as problem:
            on_failure()
            raise self._failed(problem) from problem
        facts = json.loads(Path(order.facts).read_text(encoding="utf-8"))
        return Made(tar=Path(order.output), indices={str(name): str(digest) for name, digest in facts.items()})

    def _order(
        self, layers: tuple[str, ...], options: tuple[str, ...], *, is_mapped: bool, memory_bytes: int, emulator: str
    ) -> Order:
        components = f"--components={self.suite.components.replace(' ', ',')}"
        keyring = () if self.keyring is None else (f"--keyring={self._readable(self.keyring)}",)
        # What a child installs may replace them.
        home = None if layers else self._home
        return Order(
            space=str(self.work / "space"),
            memory_bytes=memory_bytes,
            layers=layers,
            command=(
                "mmdebstrap",
                "--mode=root",
                "--format=directory",
                f"--architectures={self.suite.processor.name}",
                components,
                f"--skip={','.join(_SKIPPED)}",
                # Layers keep this file; what is left out of packages is added to it before they are installed.
                "--dpkgopt=force-unsafe-io",
                f'--aptopt=Dir::Cache::srcpkgcache "{Path(INDEX).name}/srcpkgcache.bin"',
                *keyring,
                *options,
                self.suite.name,
            ),
            arguments=self.sources,
            output=str(self.work / "tree.tar"),
            facts=str(self.work / "indices.json"),
            packages=None if self.packages is None else str(self.packages),
            lists=None if self.lists is None else str(self.lists),
            epoch=self.suite.epoch,
            seconds=self.timeout_seconds,
            is_mapped=is_mapped,
            emulator=emulator,
            twins=() if home is None else extraction(home, self.suite.name, components, *keyring),
        )

    def _readable(self, keyring: Path) -> Path:
        # apt looks at it as a user of its own, who may not enter where the site keeps it.
        copy = self.work / f"keyring{keyring.suffix}"
        with storage_errors("copying", keyring):
            shutil.copyfile(keyring, copy)
            copy.chmod(0o644)
        return copy

    def _carry_out(self, order: Order) -> None:
        Path(order.space).mkdir(exist_ok=True)
        argv = [*own_namespaces(is_mapped=order.is_mapped), sys.executable, "-P", "-m", _INSIDE]
        # The time is up in there first, so that what took too long is told.
        seconds = self.timeout_seconds + _NAMESPACE_SECONDS
        run(argv, timeout_seconds=seconds, input_bytes=order.document(), on_output=self.on_output)

    def _failed(self, problem: ToolFailedError | ToolTimeoutError) -> BuildError | NoSpaceError:
        if _FULL.search(problem.details or ""):
            return NoSpaceError(
                f"no space left while bootstrapping {self.suite.name} in {self.work}",
                details=problem.details,
                resolution="Free about 3 GiB there, or set another work directory, then run again.",
            )
        complaint = last_complaint(problem)
        return BuildError(
            f"bootstrapping {self.suite.name} failed: {complaint}",
            details=problem.details,
            resolution=advice(complaint, problem.details or "")
            or "The lines above say why: a package that does not exist, a mirror that cannot be reached …",
        )


def advice(complaint: str, said: str) -> str | None:
    """Return what to do about a program that took too long, or was killed; None: it was neither.

    Args:
        complaint: The last that was said of what is wrong.
        said: All that was said.
    """
    if _LATE in complaint:
        return (
            "Give builds longer (factory.build_timeout_seconds), or the machine less to do at a time. What is for "
            "other processors is emulated, and takes several times as long."
        )
    if _KILLED.search(said):
        return (
            "A program was killed, most likely since the memory ran out: build fewer at once (--at-once), or have more "
            "memory."
        )
    return None


def last_complaint(problem: ToolFailedError | ToolTimeoutError) -> str:
    """Return the last that was said of what is wrong; what ran it only knows that it failed."""
    said = [line.removeprefix("E: ") for line in (problem.details or "").splitlines() if line.startswith("E: ")]
    return said[-1][:_LONGEST_COMPLAINT] if said else problem.message


def can_make_trees() -> bool:
    """Tell whether this user has the namespaces that a tree is made in.

    Raises:
        ToolMissingError: ``unshare`` is not installed.
    """
    try:
        run([*own_namespaces(is_mapped=os.geteuid() != 0), "true"], timeout_seconds=_NAMESPACE_SECONDS)
    except (ToolFailedError, ToolTimeoutError):
        return False
    return True


def own_namespaces(*, is_mapped: bool) -> tuple[str, ...]:
    """Return what stands before a command that is to be run in namespaces of its own.

    Args:
        is_mapped: Whether in a user namespace as well.

    Raises:
        ToolMissingError: ``unshare`` is not installed.
    """
    # A namespace of processes ends all that was started in it when its first process ends, and that one ends with us.
    words: tuple[str, ...] = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    if is_mapped and os.geteuid() == 0:
        words = (*among_own_users(), *words)
    elif is_mapped:
        words = (*words, "--user", "--map-root-user", "--map-auto")
    private = (*words, "--propagation=private")
    try:
        run([*private, "true"], timeout_seconds=_NAMESPACE_SECONDS)
    except ToolFailedError:
        # In a chroot, the root directory is no mount point, and its propagation cannot be set.
        return (*words, "--propagation=unchanged")
    return private


def _grub_hooks(processor: Processor, root_modules: tuple[str, ...] = ()) -> tuple[str, ...]:
    # The tree's own grub-mkimage fits the tree's own modules, whatever release this machine runs. A prefix without a
    # disk means the disk that the firmware started from, so another disk with the same file system cannot interfere.
    prefix = f"(,gpt{ROOT_PARTITION})/boot/grub"

    def mkimage(platform: str, output: str, modules: Sequence[str]) -> str:
        words = ("grub-mkimage", "-O", platform, "-o", output, "-p", prefix, *modules, *root_modules)
        return f'mkdir -p "$1"{os.path.dirname(output)} && chroot "$1" {shlex.join(words)}'  # noqa: PTH120 - a guest's path

    if not processor.has_bios:
        return (mkimage(processor.efi_platform, processor.efi_core, EFI_MODULES),)
    return (
        mkimage("i386-pc", BIOS_CORE, BIOS_MODULES),
        mkimage(processor.efi_platform, processor.efi_core, EFI_MODULES),
    )
