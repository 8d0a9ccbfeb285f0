# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest

from coppice.conversion.choose import choose
from coppice.conversion.inspect import inspect
from coppice.conversion.model import ConversionLimits
from coppice.errors import ConversionError, ImageRefusedError
from coppice.model.image import DiskFormat
from coppice.testing import images

pytestmark = pytest.mark.unit
LIMITS = ConversionLimits()


@pytest.mark.threat("T61")
def test_links_and_pipes_are_refused_without_waiting(tmp_path):
    (tmp_path / "real").write_bytes(images.raw_disk())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing"):
        with pytest.raises(ImageRefusedError):
            inspect(tmp_path / name, LIMITS)


def test_the_same_format_is_kept_and_else_the_cheapest_is_made():
    assert choose(DiskFormat.RAW, (DiskFormat.QCOW2, DiskFormat.RAW)) is DiskFormat.RAW
    assert choose(DiskFormat.VMDK, (DiskFormat.RAW, DiskFormat.QCOW2)) is DiskFormat.QCOW2
    assert choose(DiskFormat.QCOW2, (DiskFormat.VDI, DiskFormat.RAW)) is DiskFormat.RAW


@pytest.mark.parametrize(
    ("source", "accepted"),
    [(DiskFormat.ISO, (DiskFormat.RAW,)), (DiskFormat.RAW, ()), (DiskFormat.RAW, (DiskFormat.ISO,))],
)
def test_what_cannot_be_converted_is_said(source, accepted):
    with pytest.raises(ConversionError):
        choose(source, accepted)
