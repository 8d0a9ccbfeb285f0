# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.errors import BundleError
from coppice.formats.bundle import (
    BundledFile,
    BundledList,
    Manifest,
    check_contents,
    parse_manifest,
    read_layout,
    read_pieces,
    write_bundle,
)
from coppice.model.checksum import Checksum

pytestmark = pytest.mark.unit
MESSAGE, WHOLE, PART = b"a signed list", b"w" * 1000, b"part"
CONTENTS = (MESSAGE, WHOLE, PART)


def manifest():
    return Manifest(
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
        lists=(
            BundledList(
                driver="hepix",
                uri="https://lists.example.org/ü",
                list_identifier="one",
                version="7",
                size_bytes=len(MESSAGE),
                content=Checksum.of(MESSAGE),
            ),
        ),
        files=(
            BundledFile(
                checksums=(Checksum.of(WHOLE), Checksum.of(WHOLE, "sha256")),
                whole_bytes=len(WHOLE),
                ranges=None,
                size_bytes=len(WHOLE),
                content=Checksum.of(WHOLE),
            ),
            BundledFile(
                checksums=(Checksum.of(b"another"),),
                whole_bytes=5000,
                ranges=((10, 1), (400, 3)),
                size_bytes=len(PART),
                content=Checksum.of(PART),
            ),
        ),
    )


def written():
    stream = io.BytesIO()
    write_bundle(stream, manifest(), [[each] for each in CONTENTS])
    return stream.getvalue()


GOOD = written()


def read(data):
    stream = io.BytesIO(data)
    layout = read_layout(stream)
    check_contents(stream, layout)
    members = zip(layout.manifest.members(), layout.offsets, strict=True)
    return layout.manifest, tuple(b"".join(read_pieces(stream, offset, size)) for (_, size, _), offset in members)


def test_a_bundle_says_what_was_written():
    assert read(GOOD) == (manifest(), CONTENTS)
    assert parse_manifest(manifest().to_json()) == manifest()


def test_any_tar_program_reads_a_bundle():
    with tarfile.open(fileobj=io.BytesIO(GOOD)) as archive:
        assert archive.getnames() == ["manifest.json", "list-0", "file-0", "file-1", "end"]
        assert archive.extractfile("file-0").read() == WHOLE


@pytest.mark.threat("T5")
@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 7))
def test_no_bit_of_a_bundle_can_be_another(place, bit):
    bad = GOOD[:place] + bytes([GOOD[place] ^ 1 << bit]) + GOOD[place + 1 :]
    with pytest.raises(BundleError):
        read(bad)


@given(st.integers(0, len(GOOD) - 1))
def test_a_bundle_that_is_cut_off_is_refused(length):
    with pytest.raises(BundleError):
        read(GOOD[:length])


@given(st.binary(min_size=1, max_size=2000))
def test_nothing_else_is_a_bundle(data):
    with pytest.raises(BundleError):
        read(data)
    with pytest.raises(BundleError):
        read(GOOD + data)


def test_what_changes_while_it_is_written_makes_no_bundle():
    with pytest.raises(BundleError, match="changed while it was written"):
        write_bundle(io.BytesIO(), manifest(), [[MESSAGE], [WHOLE[1:]], [PART]])


def test_lengths_beyond_what_is_there_cost_nothing():
    text = (
        manifest()
        .to_json()
        .replace(b'"whole_size": 1000', b'"whole_size": 9999999999')
        .replace(b'"size": 1000', b'"size": 9999999999')
    )
    assert parse_manifest(text).files[0].size_bytes == 9_999_999_999
    header = tarfile.TarInfo("manifest.json")
    header.size, header.mode, header.mtime = len(text), 0o444, int(manifest().created_at.timestamp())
    head = header.tobuf(tarfile.GNU_FORMAT) + text + bytes(-len(text) % 512)
    with pytest.raises(BundleError):
        read(head + GOOD[len(head) :])
