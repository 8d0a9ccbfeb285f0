# SPDX-License-Identifier: Apache-2.0
"""Twins: while a tree for other processors is made, what is the same on all processors runs as this machine's own.

What an emulated build takes its time for are the shell, what it calls, perl and unpacking: thousands of programs that
live for a moment, each of them translated anew. The release has the same ones for this machine's processors. They are
extracted beside the tree and mounted over the tree's own once these are installed, and nobody replaces them any more.
What says, or depends on, which processor it runs on stays emulated, and so does what goes into initial file systems.
Of twins, nothing is left in the tree.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.errors import ToolFailedError, ToolTimeoutError
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = "twins"
"""Where they are, beside the tree."""
_EXTRACTED = "twins.extracted"
PACKAGES = ("coreutils", "cpio", "dash", "dpkg", "findutils", "grep", "gzip", "mawk", "perl-base", "sed", "tar", "zstd")
# Not arch and uname, which say what machine this is, nor dpkg, which knows for which one it was made, nor kmod, which
# is copied into initial file systems.
_PROGRAMS = """\
basename cat chgrp chmod chown cksum comm cp cpio cut dash date dd dirname dpkg-deb echo env expr false find grep gzip
head id install ln ls mawk md5sum mkdir mkfifo mknod mktemp mv od perl printf pwd readlink realpath rm rmdir sed seq
sha256sum sleep sort stat sync tac tail tar tee test touch tr true uniq wc xargs zstd
"""
PROGRAMS = tuple(_PROGRAMS.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What a machine's own programs look like.

    Attributes:
        name: Its processors, as Debian's archive calls them.
        folder: Where its libraries lie below ``/lib``.
        linker: What its programs say that they are started by.
    """

    name: str
    folder: str
    linker: str

    @property
    def place(self) -> str:
        """Where their linker is put in a tree: among their libraries, with a name that is no longer than the other.

        A folder of its own at the top, where it belongs, would be seen by those who make initial file systems.
        """
        return f"/lib/{self.folder}/ld.so"


_HOMES = {"x86_64": Home(name="amd64", folder="x86_64-linux-gnu", linker="/lib64/ld-linux-x86-64.so.2")}


def find_home(machine: str) -> Home | None:
    """Return what the own programs of a ``machine`` (as the kernel calls it) look like; None: they are not known."""
    return _HOMES.get(machine)


def extraction(home: Home, suite: str, *options: str) -> tuple[str, ...]:
    """Return the command that extracts the packages that they are in, without the target.

    Args:
        home: This machine.
        suite: The release.
        options: Of mmdebstrap, that say where packages come from.
    """
    kind = ("--mode=root", "--format=directory", "--variant=extract", f"--architectures={home.name}")
    return ("mmdebstrap", *kind, f"--include={','.join(PACKAGES)}", *options, suite)


def make_twins(
    command: tuple[str, ...], home: Home, space: Path, *, sources: bytes, seconds: float, say: Callable[[str], None]
) -> None:
    """Make them in ``space``, or say why there are none: a mirror need not have packages for this machine.

    Args:
        command: As `extraction` returns it.
        home: This machine.
        space: The directory that the tree will be in.
        sources: What the command reads: lines of ``sources.list``.
        seconds: For the command.
        say: Called with what programs say.
    """
    extracted, twins = space / _EXTRACTED, space / FOLDER
    say("I: extracting programs that need not be emulated\n")
    try:
        run(
            [*command, extracted, "-"],
            timeout_seconds=seconds,
            input_bytes=sources,
            env={"TMPDIR": str(space)},
            on_output=say,
        )
        gather(extracted, home, twins)
    except (ToolFailedError, ToolTimeoutError, OSError) as problem:
        shutil.rmtree(twins, ignore_errors=True)
        say(f"I: all programs are emulated, which takes much longer: {problem}\n")
    finally:
        shutil.rmtree(extracted, ignore_errors=True)


def gather(extracted: Path, home: Home, twins: Path) -> None:
    """Take the programs, and their libraries, out of a tree where their packages were extracted.

    Raises:
        OSError: The libraries are not there, or they cannot be copied.
    """
    libraries = twins / "lib"
    folders = [extracted / "usr" / "lib" / home.folder]
    if not (extracted / "lib").is_symlink():
        folders.append(extracted / "lib" / home.folder)
    for folder in folders:
        shutil.copytree(folder, libraries, symlinks=True, dirs_exist_ok=True)
    shutil.copy(libraries / Path(home.linker).name, libraries / Path(home.place).name)
    (twins / "bin").mkdir()
    for name in PROGRAMS:
        for found in (extracted / "usr" / "bin" / name, extracted / "bin" / name):
            if found.is_file() and not found.is_symlink():
                twin = twins / "bin" / name
                twin.write_bytes(started_from_tree(found.read_bytes(), home))
                twin.chmod(0o755)


def started_from_tree(program: bytes, home: Home) -> bytes:
    """Return ``program`` so that it is started by the linker that a tree shows."""
    before, after = home.linker.encode(), home.place.encode()
    return program.replace(before + b"\0", after.ljust(len(before), b"\0") + b"\0", 1)


def showing(home: Home) -> str:
    """Return a hook of mmdebstrap that shows them in the tree: those whose own ones are installed by then.

    Nothing is done where the linker would not be found, in a tree whose ``/lib`` is no link (yet).
    """
    return f"""\
twins="${{1%/*}}/{FOLDER}"
if [ -d "$twins" ] && [ "$1/lib" -ef "$1/usr/lib" ]; then
  if [ ! -e "$1/usr{home.place}" ]; then
    mkdir "$1/usr/lib/{home.folder}" && mount --no-mtab --bind "$twins/lib" "$1/usr/lib/{home.folder}" || exit 1
  fi
  for twin in "$twins"/bin/*; do
    own="$1/usr/bin/${{twin##*/}}"
    if [ -f "$own" ] && [ ! -L "$own" ] && [ ! "$own" -ef "$twin" ]; then
      mount --no-mtab --bind "$twin" "$own" || exit 1
    fi
  done
fi"""


def hiding(home: Home) -> str:
    """Return the hook after which the tree is as if they had never been there."""
    return f"""\
twins="${{1%/*}}/{FOLDER}"
if [ -e "$1/usr{home.place}" ]; then
  for twin in "$twins"/bin/*; do
    own="$1/usr/bin/${{twin##*/}}"
    if [ "$own" -ef "$twin" ]; then
      umount --no-mtab "$own" || exit 1
    fi
  done
  umount --no-mtab "$1/usr/lib/{home.folder}" && rmdir "$1/usr/lib/{home.folder}" || exit 1
fi"""
