# SPDX-License-Identifier: Apache-2.0
"""A segment of a patch is what ``zstd --patch-from`` makes and takes."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coppice.formats.delta import BLOCK_BYTES, Extent, PatchWriter, literals, read_patch
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
COUNT = 1024
REFERENCE = random.Random(1).randbytes(COUNT * BLOCK_BYTES)  # noqa: S311 - no secret
NEW = REFERENCE[100:] + bytes(100)


def a_patch(path: Path, frame: bytes | None = None) -> Path:
    with (path.parent / "segments").open("wb") as stream:
        writer = PatchWriter(stream)
        writer.literal(COUNT)
        writer.segment(NEW, REFERENCE, [Extent(0, COUNT)])
    made = (path.parent / "segments").read_bytes()
    checksum = Checksum.of(NEW)
    size = {"target_size_bytes": len(NEW), "origin_size_bytes": len(REFERENCE)}
    head = writer.finish(**size, target_checksum=checksum, origin_checksum=Checksum.of(REFERENCE))
    path.write_bytes(head + (made if frame is None else frame))
    return path


def test_the_program_unfolds_a_segment(tmp_path: Path) -> None:
    path = a_patch(tmp_path / "patch")
    with path.open("rb") as stream:
        [segment] = read_patch(stream, size_bytes=path.stat().st_size).segments
        stream.seek(segment.offset)
        (tmp_path / "frame").write_bytes(stream.read(segment.length))
    # What follows of one another is found: the reference is used.
    assert segment.length < len(NEW) // 100
    (tmp_path / "reference").write_bytes(REFERENCE)
    argv = ["zstd", "-d", f"--patch-from={tmp_path}/reference", tmp_path / "frame", "-o", tmp_path / "made"]
    subprocess.run(argv, check=True, capture_output=True)
    assert (tmp_path / "made").read_bytes() == NEW


def test_a_frame_that_the_program_made_is_read(tmp_path: Path) -> None:
    (tmp_path / "reference").write_bytes(REFERENCE)
    (tmp_path / "new").write_bytes(NEW)
    argv = ["zstd", "--no-check", f"--patch-from={tmp_path}/reference", tmp_path / "new", "-o", tmp_path / "frame"]
    subprocess.run(argv, check=True, capture_output=True)
    frame = (tmp_path / "frame").read_bytes()
    path = a_patch(tmp_path / "patch")
    with path.open("rb") as stream:
        patch = read_patch(stream, size_bytes=path.stat().st_size)
        [segment] = patch.segments
        # The length of the program's frame is another one: the parts are put together by hand.
        stream.seek(0)
        head = stream.read(segment.offset)
    (tmp_path / "other").write_bytes(head + frame)
    other = replace(patch, segments=(replace(segment, length=len(frame)),))
    with (tmp_path / "other").open("rb") as stream:
        made = b"".join(literals(other, stream, lambda offset, length: REFERENCE[offset : offset + length]))
    assert made == NEW
