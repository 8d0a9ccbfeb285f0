# SPDX-License-Identifier: Apache-2.0
"""The second opinion may only refuse; where it fails, nothing is taken."""

from __future__ import annotations

import logging

import pytest
from oslo_utils.imageutils import format_inspector

from coppice.conversion.detect import detect
from coppice.conversion.disks import opinion
from coppice.conversion.model import ConversionLimits, Detection
from coppice.conversion.window import BytesWindow
from coppice.errors import CorruptImageError, SeveralFormatsError, UnsupportedImageError
from coppice.model.image import DiskFormat
from coppice.testing import images
from coppice.testing.qcow2 import TinyQcow2

pytestmark = [pytest.mark.unit, pytest.mark.threat("T62")]
LIMITS = ConversionLimits()


def ask(content: bytes, kind: DiskFormat, *, variant: str = "", size: int | None = None) -> None:
    disk = Detection(format=kind, variant=variant, virtual_size_bytes=len(content) if size is None else size)
    opinion.ask(BytesWindow(content), disk, "x")


def test_another_format_that_it_sees_is_refused():
    with pytest.raises(SeveralFormatsError, match=r"oslo\.utils sees iso"):
        ask(images.iso(), DiskFormat.RAW)


def test_a_format_that_it_does_not_see_is_refused():
    with pytest.raises(CorruptImageError, match="does not see"):
        ask(images.raw_disk(), DiskFormat.QCOW2)


def test_a_fixed_vhd_is_the_only_one_that_it_need_not_see():
    ask(images.raw_disk(), DiskFormat.VHD, variant="fixed")
    with pytest.raises(CorruptImageError, match="does not see"):
        ask(images.raw_disk(), DiskFormat.VHD, variant="dynamic")


def test_another_length_of_the_disk_is_refused():
    content = TinyQcow2().content()
    ask(content, DiskFormat.QCOW2, variant="v3", size=64 * 1024)
    with pytest.raises(CorruptImageError, match=r"where oslo\.utils looks"):
        ask(content, DiskFormat.QCOW2, variant="v3", size=128 * 1024)


def test_what_it_calls_dangerous_is_refused_but_for_sub_clusters():
    extended = TinyQcow2(fields={"incompatible": 16}).content()
    ask(extended, DiskFormat.QCOW2, variant="v3 extended-l2", size=64 * 1024)
    with pytest.raises(UnsupportedImageError, match="unknown_features"):
        ask(extended, DiskFormat.QCOW2, variant="v3", size=64 * 1024)
    both = TinyQcow2(fields={"incompatible": 20}).content()
    with pytest.raises(UnsupportedImageError, match="data_file"):
        ask(both, DiskFormat.QCOW2, variant="v3 extended-l2", size=64 * 1024)


@pytest.mark.parametrize(
    "problem", [AttributeError("vmdktype"), RecursionError(), format_inspector.ImageFormatError("x")]
)
def test_where_it_fails_the_file_is_not_taken(monkeypatch, problem):
    def fail(*_: object) -> None:
        raise problem

    monkeypatch.setattr(format_inspector.InspectWrapper, "close", fail)
    with pytest.raises(UnsupportedImageError, match=r"inspectors of oslo\.utils failed"):
        detect(BytesWindow(images.raw_disk()), LIMITS, name="x", file_size_bytes=10**6)


def test_where_its_check_fails_the_file_is_not_taken(monkeypatch):
    def fail(*_: object) -> None:
        raise format_inspector.ImageFormatError("incomplete")

    monkeypatch.setattr(format_inspector.QcowInspector, "safety_check", fail)
    with pytest.raises(CorruptImageError, match="cannot judge"):
        detect(BytesWindow(TinyQcow2().content()), LIMITS, name="x", file_size_bytes=10**6)


def test_it_warns_of_nothing_on_its_own(caplog):
    with caplog.at_level(logging.DEBUG, logger="oslo_utils"), pytest.raises(UnsupportedImageError):
        ask(TinyQcow2(fields={"incompatible": 4}).content(), DiskFormat.QCOW2, variant="v3")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_it_is_asked_after_own_checks_and_not_for_what_they_refuse(monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(opinion, "ask", fail)
    with pytest.raises(SeveralFormatsError):
        detect(BytesWindow(images.iso(system_area=b"QFI\xfb")), LIMITS, name="x", file_size_bytes=10**6)
