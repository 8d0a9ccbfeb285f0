# SPDX-License-Identifier: Apache-2.0
"""Disks with a guest in them, made by the real programs, without root's rights and without mounting."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice import process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MIB = 1024 * 1024
OS_RELEASE = b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n'
UUID = "8cfe3984-2a96-5a40-a520-481acfa6c766"
LABEL = "guest"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
_SECONDS = 60.0
_SIZES = {"xfs": 320 * MIB, "btrfs": 128 * MIB, "vfat": 40 * MIB}


def kernel(version: bytes = b"6.1.0-18-amd64 (builder)") -> bytes:
    """Return the beginning of a kernel for x86_64, and some more bytes."""
    head = bytearray(64 * 1024)
    head[0x1FE:0x206] = b"\x55\xaa\xeb\x00HdrS"
    struct.pack_into("<HIHH", head, 0x206, 0x020F, 0, 0, 0x400)
    struct.pack_into("<H", head, 0x236, 1)
    head[0x600 : 0x600 + len(version)] = version
    return bytes(head) + bytes(range(256)) * 4096


def program() -> bytes:
    """Return the beginning of a program for x86_64."""
    return (b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + struct.pack("<H", 62)).ljust(8192, b"\0")


def debian() -> dict[str, bytes | str]:
    """Return the files of a small guest; text is what a symbolic link says."""
    return {
        "etc/os-release": "../usr/lib/os-release",
        "usr/lib/os-release": OS_RELEASE,
        "etc/cloud/cloud.cfg": b"#cloud-config\n",
        "usr/bin/bash": program(),
        "boot/vmlinuz-6.1.0-18-amd64": kernel(),
        "vmlinuz": "boot/vmlinuz-6.1.0-18-amd64",
    }


def write_tree(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    """Write files and links into a folder; return it."""
    for name, content in sorted(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            os.symlink(content, path)  # noqa: PTH211 - a target is text, and may not be a path
        else:
            path.write_bytes(content)
    return folder


def file_system(path: Path, kind: str, tree: Path, *, size_bytes: int = 0, options: Sequence[str] = ()) -> Path:
    """Make a file system in a file, with the files of a folder.

    Args:
        path: The file.
        kind: What ``mkfs`` calls it: ``ext4``, ``xfs``, ``btrfs``, ``vfat`` …
        tree: The folder; of links, FAT gets none.
        size_bytes: Its length; 0: as small as it goes.
        options: Further ones for the program.
    """
    size = size_bytes or _SIZES.get(kind, 24 * MIB)
    with path.open("wb") as file:
        file.truncate(size)
    if kind == "xfs":
        prototype = path.with_suffix(".prototype")
        prototype.write_text(f"/dev/null\n0 0\nd--755 0 0\n{_prototype(tree)}$\n")
        argv = ["mkfs.xfs", "-q", "-L", LABEL, "-m", f"uuid={UUID}", "-p", str(prototype), *options, str(path)]
    elif kind == "btrfs":
        argv = ["mkfs.btrfs", "-q", "-L", LABEL, "-U", UUID, "--rootdir", str(tree), *options, str(path)]
    elif kind == "vfat":
        argv = ["mkfs.vfat", "-n", LABEL.upper(), "-i", "1234abcd", *options, str(path)]
    else:
        argv = ["mke2fs", "-q", "-t", kind, "-L", LABEL, "-U", UUID, "-d", str(tree), *options, str(path)]
    process.run(argv, timeout_seconds=_SECONDS)
    if kind == "vfat":
        for each in sorted(tree.iterdir()):
            process.run(["mcopy", "-s", "-i", str(path), str(each), "::/"], timeout_seconds=_SECONDS)
    return path


def _prototype(folder: Path) -> str:
    lines = []
    for each in sorted(folder.iterdir()):
        if each.is_symlink():
            lines.append(f"{each.name} l--777 0 0 {os.readlink(each)}\n")  # noqa: PTH115 - as it is written
        elif each.is_dir():
            lines.append(f"{each.name} d--755 0 0\n{_prototype(each)}$\n")
        else:
            lines.append(f"{each.name} ---644 0 0 {each}\n")
    return "".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A partition to be.

    Attributes:
        content: A file with what is in it; None: nothing.
        kind: As ``sfdisk`` takes it: a UUID, or two digits.
        size_bytes: Its length; 0: that of the content.
        is_active: Whether a BIOS is to start it.
    """

    content: Path | None = None
    kind: str = LINUX
    size_bytes: int = 0
    is_active: bool = False


def disk(path: Path, parts: Sequence[Part], *, table: str = "gpt", boot_code: bytes = b"") -> Path:
    """Make a raw disk with partitions.

    Args:
        path: The file.
        parts: Its partitions, in order.
        table: ``gpt`` or ``dos``.
        boot_code: What a BIOS runs.
    """
    lines, placed, at = [f"label: {table}"], [], MIB
    for part in parts:
        size = part.size_bytes or (part.content.stat().st_size if part.content is not None else MIB)
        active = ", bootable" if part.is_active else ""
        lines.append(f"start={at // 512}, size={size // 512}, type={part.kind}{active}")
        placed.append((at, part))
        at += -(-size // MIB) * MIB
    with path.open("wb") as file:
        file.truncate(at + MIB)
    process.run(["sfdisk", "-q", str(path)], timeout_seconds=_SECONDS, input_bytes="\n".join(lines).encode() + b"\n")
    with path.open("r+b") as file:
        file.write(boot_code)
        for start, part in placed:
            if part.content is not None:
                file.seek(start)
                file.write(part.content.read_bytes())
    return path
