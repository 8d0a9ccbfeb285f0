# SPDX-License-Identifier: Apache-2.0
"""The nginx of the test kit is a real server: conditions, ranges, TLS, and a 503 when it is told so."""

from __future__ import annotations

import os
import ssl
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from coppice.errors import HttpStatusError, UnreachableError
from coppice.http import Client
from coppice.testing.authority import Authority
from coppice.testing.nginx import Nginx
from coppice.testing.publishing.server import TRANSFER
from coppice.testing.tls import server_tls

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def test_it_serves_ranges_and_says_when_nothing_changed(tmp_path: Path) -> None:
    client = Client(TRANSFER)
    with Nginx(tmp_path / "nginx") as server:
        server.put("a/file", b"0123456789")
        url = server.url("/a/file")
        first = client.get_if_changed(url, limit_bytes=100, validators=None)
        assert first.body == b"0123456789"
        assert client.get_if_changed(url, limit_bytes=100, validators=first.validators).body is None
        server.put("a/file", b"9876543210")
        assert client.get_if_changed(url, limit_bytes=100, validators=first.validators).body == b"9876543210"
        part = urllib.request.Request(url, headers={"Range": "bytes=2-4"})  # noqa: S310 - an address of its own
        with urllib.request.urlopen(part) as answer:  # noqa: S310 - likewise
            assert (answer.status, answer.read()) == (206, b"765")
        server.go_down()
        with pytest.raises(HttpStatusError):
            client.get_if_changed(url, limit_bytes=100, validators=None)
        server.go_down(down=False)
        assert client.get_if_changed(url, limit_bytes=100, validators=None).body == b"9876543210"
    with pytest.raises(UnreachableError):
        client.get_if_changed(url, limit_bytes=100, validators=None)


def test_what_is_changed_twice_within_a_second_is_not_missed(tmp_path: Path) -> None:
    client = Client(TRANSFER)
    with Nginx(tmp_path / "nginx") as server:
        file, url = server.root / "list", server.url("/list")
        file.write_bytes(b"version 1")
        # However slow this machine is, the second of the file is not over when nginx answers.
        now = time.time() + 3600
        os.utime(file, (now, now))
        first, tag = client.get_if_changed(url, limit_bytes=100, validators=None), tag_of(url)
        file.write_bytes(b"version 2")
        os.utime(file, (now, now))
        assert tag_of(url) == tag
        again = client.get_if_changed(url, limit_bytes=100, validators=first.validators)
        assert (first.body, again.body) == (b"version 1", b"version 2")
        # Once the second is over, what it says is worth something.
        os.utime(file, (now - 7200, now - 7200))
        firm = client.get_if_changed(url, limit_bytes=100, validators=None)
        assert client.get_if_changed(url, limit_bytes=100, validators=firm.validators).body is None


def tag_of(url: str) -> str:
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - an address of its own
        return str(answer.headers["ETag"])


def test_it_speaks_tls(tmp_path: Path) -> None:
    authority = Authority.create("Example CA")
    assert isinstance(server_tls(tmp_path, authority), ssl.SSLContext)
    (certificate,) = tmp_path.glob("server-*.pem")
    anchors = authority.write_to(tmp_path / "anchors")
    with Nginx(tmp_path / "nginx", tls=(certificate, certificate.with_suffix(".key"))) as server:
        server.put("file", b"x")
        client = Client(TRANSFER)
        assert (
            client.get_if_changed(
                server.url("/file"), limit_bytes=9, validators=None, server_anchors=anchors / "ca.pem"
            ).body
            == b"x"
        )
        with pytest.raises(UnreachableError):
            client.get_if_changed(server.url("/file"), limit_bytes=9, validators=None)
