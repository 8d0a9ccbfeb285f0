# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from coppice.errors import (
    ConversionError,
    ExistsError,
    ImageRefusedError,
    InputError,
    StorageError,
    UnreadableFileError,
)
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware
from coppice.model.requirements import DiskBus, Requirements
from coppice.monitor import SILENT, SILENT_TASK
from coppice.settings.load import load_settings
from coppice.workflows import image_file
from coppice.workflows.image_file import Wish, convert_file, default_destination, report_on
from coppice.workflows.image_limits import limits_of

pytestmark = pytest.mark.unit

MIB = 1024 * 1024


@pytest.fixture
def settings(tmp_path):
    environ = {"HOME": str(tmp_path), "COPPICE_STATE_DIRECTORY": str(tmp_path / "state")}
    return load_settings(config=None, environ=environ, options={}, system_file=tmp_path / "none.toml")


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "images" / "disk.raw"
    path.parent.mkdir()
    path.write_bytes(b"\1" * MIB)
    return path


@pytest.fixture
def convert(raw, settings):
    def _convert(**wish):
        wish = {"format": DiskFormat.RAW, "destination": raw.with_name("new.raw"), **wish}
        return convert_file(raw, Wish(**wish), settings, SILENT)

    return _convert


def files(raw):
    return sorted(path.name for path in raw.parent.iterdir())


@pytest.mark.parametrize(
    ("name", "wanted", "expected"),
    [
        ("debian.qcow2", "raw", "debian.raw"),
        ("debian.raw.xz", "qcow2", "debian.qcow2"),
        ("debian.tar.gz", "vmdk", "debian.vmdk"),
        ("debian.tgz", "vmdk", "debian.vmdk"),
        ("debian.IMG.GZ", "raw", "debian.raw"),
        ("debian.ova", "ova", "debian.ova"),
        ("debian-12.1", "vhd", "debian-12.1.vhd"),
        ("debian", "vdi", "debian.vdi"),
        (".qcow2", "raw", ".qcow2.raw"),
        ("a.raw.raw", "vdi", "a.raw.vdi"),
    ],
)
def test_a_new_file_is_called_as_the_old_one_without_its_endings(name, wanted, expected):
    assert default_destination(Path("/images") / name, DiskFormat(wanted)) == Path("/images") / expected


def test_the_root_of_all_folders_gives_no_name():
    with pytest.raises(InputError):
        default_destination(Path("/"), DiskFormat.RAW)


def test_all_bounds_come_from_the_settings(settings):
    bounds, limits = settings.conversion, limits_of(settings.conversion)
    assert {name: getattr(bounds, name) for name in limits.__slots__} == {
        name: getattr(limits, name) for name in limits.__slots__
    }


def test_a_raw_file_is_copied_into_one_of_its_own(raw, convert):
    made = convert()
    assert made.is_converted is False
    assert made.path.read_bytes() == raw.read_bytes()
    assert made.path.stat().st_ino != raw.stat().st_ino
    assert files(raw) == ["disk.raw", "new.raw"]


def test_nobody_who_made_the_file_meanwhile_loses_it(raw, convert, monkeypatch):
    real = image_file.transform

    def slow(*arguments, **more):
        made = real(*arguments, **more)
        raw.with_name("new.raw").write_text("somebody's")
        return made

    monkeypatch.setattr(image_file, "transform", slow)
    with pytest.raises(ExistsError):
        convert()
    assert raw.with_name("new.raw").read_text() == "somebody's"
    assert files(raw) == ["disk.raw", "new.raw"]


def test_a_file_system_without_hard_links_will_do(raw, convert, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    convert()
    assert files(raw) == ["disk.raw", "new.raw"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_fails_leaves_what_was_there(raw, convert, monkeypatch, overwrite):
    def fail(disk, wanted, destination, **_):
        destination.write_text("half")
        raise ConversionError("it failed")

    if overwrite:
        raw.with_name("new.raw").write_text("older")
    monkeypatch.setattr(image_file, "transform", fail)
    with pytest.raises(ConversionError):
        convert(overwrite=overwrite)
    assert files(raw) == ["disk.raw", *(["new.raw"] if overwrite else [])]
    if overwrite:
        assert raw.with_name("new.raw").read_text() == "older"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_device_or_a_pipe_keeps_its_place(raw, convert, overwrite):
    pipe = raw.with_name("pipe")
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="device"):
        convert(destination=pipe, overwrite=overwrite)
    assert pipe.is_fifo()
    assert files(raw) == ["disk.raw", "pipe"]


def test_a_folder_that_may_not_be_written_is_named_before_anything_is_read(raw, convert, monkeypatch):
    monkeypatch.setattr(image_file.os, "access", lambda path, _mode: path != raw.parent)
    monkeypatch.setattr(image_file, "opened_disk", None)
    with pytest.raises(StorageError, match=f"may not write in the folder {raw.parent}$"):
        convert()


def test_a_folder_is_called_as_it_was_named(raw, settings, monkeypatch):
    monkeypatch.chdir(raw.parent)
    for named in (".", "/"):
        with pytest.raises(ImageRefusedError, match=f"^{re.escape(named)} is a folder"):
            report_on(Path(named), settings, SILENT, with_guest=False)


def test_what_is_wished_of_an_ova_stands_above_what_its_source_says(raw, convert, monkeypatch):
    seen = []

    def note(disk, wanted, destination, *, options, limits, monitor):
        seen.append(options)
        raise ConversionError("enough was seen")

    told = Requirements(minimum_cores=1, minimum_ram_mib=512, firmware=Firmware.UEFI)
    wished = Requirements(minimum_cores=8, disk_bus=DiskBus.SCSI)
    monkeypatch.setattr(image_file, "transform", note)
    monkeypatch.setattr(image_file, "_told_by", lambda _found: told)
    for requirements in (wished, None):
        with pytest.raises(ConversionError):
            convert(format=DiskFormat.OVA, destination=raw.with_name("box.ova"), requirements=requirements)
    assert seen[0].requirements == Requirements(
        minimum_cores=8, minimum_ram_mib=512, firmware=Firmware.UEFI, disk_bus=DiskBus.SCSI
    )
    assert seen[1].requirements == told
    assert seen[0].name == "box"


def test_a_report_has_no_guest_where_nobody_asked_for_it(raw, settings):
    report = report_on(raw, settings, SILENT, with_guest=False)
    assert (report.guest, report.problem, report.inspection.format) == (None, None, DiskFormat.RAW)
    assert not settings.state_directory.exists()


def test_links_that_go_round_in_a_circle_are_an_error(tmp_path, settings):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(UnreadableFileError):
        report_on(tmp_path / "one", settings, SILENT, with_guest=False)


class Exchanging:
    """A monitor that exchanges the file for another when qemu-img is about to read it."""

    def __init__(self, raw, other) -> None:
        self.raw, self.other = raw, other

    def message(self, text):
        pass

    @contextmanager
    def task(self, label, **_):
        if label.startswith(("converting", "Looking")):
            self.raw.rename(self.raw.with_name("away"))
            self.raw.symlink_to(self.other)
        yield SILENT_TASK


@pytest.mark.threat("T70")
def test_nothing_is_made_of_a_file_that_was_exchanged_after_it_was_looked_at(raw, settings, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\2" * MIB)

    def stand_in(disk, wanted, destination, *, monitor, **_):
        with monitor.task("converting"):
            destination.write_bytes(disk.path.read_bytes())

    monkeypatch.setattr(image_file, "transform", stand_in)
    wish = Wish(format=DiskFormat.QCOW2, destination=raw.with_name("new.qcow2"))
    with pytest.raises(ImageRefusedError, match="changed while it was read"):
        convert_file(raw, wish, settings, Exchanging(raw, secret))
    assert files(raw) == ["away", "disk.raw"]


def test_a_file_that_is_exchanged_while_its_disk_is_looked_into_is_not_reported(raw, settings, tmp_path):
    with pytest.raises(ImageRefusedError, match="changed while it was read"):
        report_on(raw, settings, Exchanging(raw, tmp_path / "secret"), with_guest=True)
