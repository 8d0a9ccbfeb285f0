# SPDX-License-Identifier: Apache-2.0
"""How the files of an image are read; reading a real one is in tests/integration."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile

import pytest

from coppice.errors import BuildError
from coppice.factory.bootstrap.listing import Kind
from coppice.factory.bootstrap.listing import Node as Listed
from coppice.factory.evidence.tree import Node
from coppice.factory.image_start.content import _add, _check_sizes, _Content
from coppice.factory.partition_table import Root

pytestmark = pytest.mark.unit

ROOT = Root(number=1, start_bytes=0, size_bytes=1 << 20, is_last=True, label="gpt")


def test_a_file_goes_into_the_layer_piece_by_piece_with_the_digest_of_the_whole():
    whole, most = bytes(range(256)) * 1000, 0
    given = [whole[at : at + 10_007] for at in range(0, len(whole), 10_007)]

    def pieces():
        nonlocal most
        for piece in given:
            most = max(most, len(content._piece))
            yield piece

    content = _Content(pieces())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w|") as archive:
        _add(archive, "/a/file", Listed(kind=Kind.FILE, mode=0o644, size_bytes=len(whole)), content)
        _add(archive, "/a/link", Listed(kind=Kind.LINK, mode=0, target="/a/file"), _Content(iter(())))
    assert content.digest == hashlib.sha256(whole).hexdigest()
    assert most <= 10_007
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        assert archive.extractfile("a/file").read() == whole
        assert archive.getmember("a/link").linkname == "a/file"


def test_a_file_that_is_longer_than_its_file_system_is_refused_before_it_is_read():
    def named(path, size):
        return Node(path=path, inode=12, mode=stat.S_IFREG | 0o644, size_bytes=size)

    _check_sizes([named("/swapfile", 1 << 20)], ROOT)
    with pytest.raises(BuildError, match="/var/log/lastlog in the image has 1099511627776 bytes"):
        _check_sizes([named("/swapfile", 1), named("/var/log/lastlog", 1 << 40)], ROOT)
