# SPDX-License-Identifier: Apache-2.0
"""What the builder packer starts from, before anything is run."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from coppice.definition.read import read_definition
from coppice.errors import BuildError, StorageError
from coppice.factory.model import BuildOptions, BuiltImage
from coppice.factory.packer import builder as building
from coppice.factory.packer import disk, look_over
from coppice.factory.packer.options import read_options
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image

pytestmark = pytest.mark.unit

SUM = f"sha256:{'a' * 64}"
SHIPPED = read_definition(Path(__file__).parents[3] / "definitions" / "debian-12")
PLAIN = replace(SHIPPED, name="plain", builder="packer", packages=())


def making(definition, work, **options):
    return building._Making(
        definition=definition,
        said=read_options(definition),
        options=BuildOptions(**options),
        work=work,
        task=SimpleNamespace(note=lambda _text: None),
        log=None,
    )


def test_leave_to_fetch_a_medium_does_not_stand_in_what_is_published(tmp_path):
    address = "https://images.example/x.iso?token=abc"
    definition = replace(PLAIN, platforms={"qemu": {"iso-url": address, "iso-checksum": SUM}})
    start, inputs = making(definition, tmp_path).find_start()
    assert start.address == address
    assert [each.uri for each in inputs] == ["https://images.example/x.iso"]


def test_a_parents_image_that_packer_cannot_start_from_is_read_only_with_its_own_bytes(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(building, "read_disk", lambda _image, raw, **_words: read.append(raw))
    monkeypatch.setattr(building, "lay_start", lambda *_arguments: Checksum.of(b""))
    path = tmp_path / "parent.vmdk"
    path.write_bytes(b"its own")
    image = Image(format=DiskFormat.VMDK, size_bytes=7, virtual_size_bytes=512, checksum=Checksum.of(path.read_bytes()))
    parent = SimpleNamespace(definition=SHIPPED, images=(BuiltImage(path=path, image=image),))
    upon = making(replace(PLAIN, parent=SHIPPED.name), tmp_path, ancestors=(parent,))
    upon.find_start()
    assert read == [tmp_path / "parent.raw"]
    path.write_bytes(b"others'")
    with pytest.raises(BuildError, match="is not the one that is wanted"):
        upon.find_start()
    assert len(read) == 1


KEY = f"ssh-ed25519 {'A' * 68}"


def test_the_key_is_found_wherever_it_is_and_a_disk_that_cannot_be_read_is_not_taken_for_one_without(
    tmp_path, monkeypatch
):
    raw = tmp_path / "made.raw"
    with raw.open("wb") as stream:
        stream.truncate(1 << 22)
        stream.seek(1 << 21)
        stream.write(b"nothing")
    disk.check_key_is_gone(raw, KEY)

    def fails(*_arguments):
        raise OSError(errno.EIO, "input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "lseek", fails)
        with pytest.raises(StorageError):
            disk.check_key_is_gone(raw, KEY)
    with raw.open("r+b") as stream:
        stream.seek((1 << 21) + 4000)
        stream.write(KEY.encode())
    with pytest.raises(BuildError, match="still on the disk"):
        disk.check_key_is_gone(raw, KEY)


def test_looking_a_definition_over_on_a_disk_that_fails_is_an_error_of_the_disk(tmp_path):
    with pytest.raises(StorageError):
        look_over._empty_disk(tmp_path / "gone")
