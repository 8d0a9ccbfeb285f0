# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from coppice.cage.needs import _loader, needs_of
from coppice.errors import ToolMissingError

pytestmark = pytest.mark.unit


def elf(loader: bytes, *, offset: int = 120) -> bytes:
    head = bytearray(b"\x7fELF\x02\x01\x01" + bytes(57))
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 56, 1)
    return bytes(head) + struct.pack("<IIQQQQQQ", 3, 4, offset, 0, 0, len(loader), len(loader), 1) + loader


def program(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def test_the_loader_of_a_program_is_read_from_its_head() -> None:
    assert _loader(elf(b"/lib64/ld-linux-x86-64.so.2\0")) == "/lib64/ld-linux-x86-64.so.2"
    assert _loader(elf(b"")) is None
    assert _loader(b"\x7fELF\x01\x01" + bytes(60)) is None
    assert _loader(b"\x7fELF\x02\x01" + b"\xff" * 90) is None
    assert _loader(b"") is None


def test_a_program_needs_libraries_and_not_the_folders_of_programs(tmp_path: Path) -> None:
    needs = needs_of(str(program(tmp_path, "static", b"\x7fELF\x02\x01" + bytes(100))))
    assert needs.program == str(Path(os.path.realpath(tmp_path), "static"))
    assert not {"/usr", "/usr/bin", "/bin", "/etc", "/home", "/root"} & set(needs.trees)
    assert "/usr/lib" in needs.trees


def test_a_program_that_is_a_link_keeps_the_name_that_it_was_called_by(tmp_path: Path) -> None:
    program(tmp_path, "mtools", b"\x7fELF\x02\x01" + bytes(100))
    (tmp_path / "mcopy").symlink_to("mtools")
    assert Path(needs_of(str(tmp_path / "mcopy")).program).name == "mcopy"


def test_a_script_gets_its_interpreter_and_what_is_installed(tmp_path: Path) -> None:
    other = program(tmp_path, "interpreter", b"\x7fELF\x02\x01" + bytes(100))
    needs = needs_of(str(program(tmp_path, "script", f"#!{other} -x\n".encode())))
    assert "/usr" in needs.trees
    assert str(other) in needs.trees
    assert needs_of(str(program(tmp_path, "empty", b"#!\n"))).trees


def test_a_program_that_was_replaced_is_looked_at_anew(tmp_path: Path) -> None:
    path = program(tmp_path, "tool", b"\x7fELF\x02\x01" + bytes(100))
    assert "/usr" not in needs_of(str(path)).trees
    program(tmp_path, "tool", b"#!/bin/sh\nexit 1\n")
    assert "/usr" in needs_of(str(path)).trees


def test_a_program_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ToolMissingError):
        needs_of(str(tmp_path / "none"))
