# SPDX-License-Identifier: Apache-2.0
"""The real Glance of the test kit is one: it looks into what it is given, and says no where it should."""

from __future__ import annotations

import hashlib
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.testing.glance import Glance

pytestmark = pytest.mark.integration

DISK_BYTES = 4 * 1024 * 1024


def raw_disk(directory: Path) -> Path:
    path = directory / "disk.raw"
    path.write_bytes(random.Random(7).randbytes(DISK_BYTES // 2) + bytes(DISK_BYTES // 2))  # noqa: S311 - content for tests
    return path


def converted(raw: Path, wanted: str, *options: str) -> Path:
    path = raw.with_suffix(f".{wanted}")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", wanted, *options, str(raw), str(path)], check=True)
    return path


def test_an_image_is_taken_as_what_it_is_with_the_size_and_the_bytes_that_it_has(
    glance: Glance, tmp_path: Path
) -> None:
    image = converted(raw_disk(tmp_path), "qcow2")
    offered = glance.offer(image, DiskFormat.QCOW2)
    assert offered.is_taken, offered
    assert offered.virtual_size_bytes == DISK_BYTES
    assert offered.sha512 == hashlib.sha512(image.read_bytes()).hexdigest()


def test_an_image_is_refused_as_what_it_is_not_and_another_is_taken_after_it(glance: Glance, tmp_path: Path) -> None:
    image = converted(raw_disk(tmp_path), "qcow2")
    refused = glance.offer(image, DiskFormat.VMDK)
    assert (refused.http_status, refused.status, refused.is_taken) == (415, "queued", False), refused
    assert refused.sha512 is None
    assert glance.offer(image, DiskFormat.QCOW2).is_taken


def test_an_image_that_refers_to_another_file_is_refused(glance: Glance, tmp_path: Path) -> None:
    raw = raw_disk(tmp_path)
    image = converted(raw, "vmdk", "-o", "subformat=monolithicFlat")
    assert glance.offer(image, DiskFormat.VMDK).http_status == 415


def test_a_large_image_that_is_refused_at_once_is_told_so_while_it_is_sent(glance: Glance, tmp_path: Path) -> None:
    path = tmp_path / "large.vdi"
    with path.open("wb") as stream:
        stream.truncate(64 * 1024 * 1024)
    offered = glance.offer(path, DiskFormat.VDI)
    assert not offered.is_taken
    assert offered.status == "queued"


def test_no_image_stays_behind(glance: Glance, tmp_path: Path) -> None:
    glance.offer(raw_disk(tmp_path), DiskFormat.RAW)
    code, said = glance.request("GET", "/v2/images")
    assert code == 200
    assert '"images": []' in said
