# SPDX-License-Identifier: Apache-2.0
"""Other runs link to a cached file at any time: it stays what it is, and nothing is fetched twice because of that."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from coppice.cache import shelf as shelf_module
from coppice.cache.handout import HandOut
from coppice.cache.store import ImageCache
from coppice.errors import ChecksumMismatchError, StorageError
from coppice.model.checksum import Checksum
from coppice.monitor import SILENT
from coppice.testing.client import loopback_client
from coppice.testing.desired import desired_image
from coppice.testing.server import serve

pytestmark = [pytest.mark.integration, pytest.mark.threat("T84")]
DATA = b"bytes of a disk" * 100_000


@pytest.fixture
def wanted(loopback_server):
    loopback_server.set("/one.img", serve(DATA))
    desired = desired_image("one")
    named = {"uri": loopback_server.url("/one.img"), "size_bytes": len(DATA), "checksum": Checksum.of(DATA)}
    return replace(desired, listed=replace(desired.listed, **named))


@pytest.fixture
def opened(tmp_path):
    made = []

    def open_cache():
        made.append(ImageCache(tmp_path / "cache", client=loopback_client(attempts=1)))
        return made[-1]

    yield open_cache
    for cache in made:
        cache.close()


def asked(server):
    return [each.path for each in server.requests if each.method == "GET"]


def test_a_link_that_comes_while_another_run_reads_the_file_makes_nobody_fetch_it_again(
    opened, wanted, loopback_server, tmp_path, monkeypatch
):
    path = opened().obtain(wanted.key, wanted.listed).path
    read, links = shelf_module.hash_file, []

    def read_while_a_cloud_links(path, algorithms, on_piece):
        def linked(count):
            links.append(tmp_path / f"link-{len(links)}")
            os.link(path, links[-1])
            on_piece(count)

        return read(path, algorithms, linked)

    monkeypatch.setattr(shelf_module, "hash_file", read_while_a_cloud_links)
    second = opened().obtain(wanted.key, wanted.listed)
    assert links
    assert (second.path, second.reused) == (path, True)
    assert asked(loopback_server) == ["/one.img"]
    assert not (tmp_path / "cache" / "quarantine").exists()


def test_a_file_that_a_cloud_linked_to_since_it_was_verified_is_handed_out(opened, wanted, tmp_path):
    cache = opened()
    cached = cache.obtain(wanted.key, wanted.listed, SILENT)
    os.link(cached.path, tmp_path / "link")
    hand_out = HandOut(cache.shelf)
    hand_out.give(cached, "one")
    assert (hand_out.directory / "one").read_bytes() == DATA
    # What changed besides is found out all the same.
    again = cache.obtain(wanted.key, wanted.listed, SILENT)
    os.link(cached.path, tmp_path / "other")
    cached.path.chmod(0o644)
    cached.path.write_bytes(b"x" * len(DATA))
    with pytest.raises(ChecksumMismatchError):
        hand_out.give(again, "two")
    assert not (hand_out.directory / "two").exists()


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT]
)
def test_a_machine_that_is_short_of_something_says_nothing_about_the_file(
    opened, wanted, loopback_server, monkeypatch, number
):
    path = opened().obtain(wanted.key, wanted.listed).path

    def short(*_):
        raise OSError(number, os.strerror(number))

    other = opened()
    with monkeypatch.context() as patch:
        patch.setattr(shelf_module, "hash_file", short)
        with pytest.raises(StorageError):
            other.obtain(wanted.key, wanted.listed)
    assert path.read_bytes() == DATA
    assert opened().obtain(wanted.key, wanted.listed).checksum == Checksum.of(DATA)
    assert asked(loopback_server) == ["/one.img"]
