# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from coppice.errors import CoppiceError, TransferError, TransferTooLargeError, UnreachableError, UnsignedListError
from coppice.subscription.fetch import fetch_list

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


class Recorder:
    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []

    def get_bytes(self, url: str, *, limit_bytes: int) -> bytes:
        self.asked.append((url, limit_bytes))
        return self.answer


def test_http_goes_through_the_client_with_its_limit() -> None:
    client: Any = Recorder(b"list")
    assert fetch_list("https://lists.example.org/a", client, 10) == b"list"
    assert client.asked == [("https://lists.example.org/a", 10)]


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    client: Any = Recorder(b"")
    path = tmp_path / "a b.list"
    path.write_bytes(b"12345")
    assert fetch_list(path.as_uri(), client, 5) == b"12345"
    with pytest.raises(TransferTooLargeError):
        fetch_list(path.as_uri(), client, 4)
    assert client.asked == []


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    client: Any = Recorder(b"")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", "."):
        with pytest.raises(UnreachableError):
            fetch_list(f"file://{tmp_path}/{name}", client, 10)
    with pytest.raises(UnreachableError):
        fetch_list("file:///a%00b", client, 10)


@pytest.mark.parametrize("uri", ["ftp://x/y", "list", "", "file://host/x", "http:///x", "gopher://x", "http://[x"])
def test_other_addresses_are_refused(uri: str) -> None:
    client: Any = Recorder(b"")
    with pytest.raises(TransferError, match="cannot be fetched"):
        fetch_list(uri, client, 10)


def test_an_empty_answer_is_no_list() -> None:
    client: Any = Recorder(b"")
    with pytest.raises(UnsignedListError, match="empty"):
        fetch_list("http://lists.example.org/", client, 10)


@pytest.mark.threat("T54")
def test_credentials_in_an_address_stay_out_of_errors() -> None:
    client: Any = Recorder(b"")
    for uri in ("https://me:canary@lists.example.org/a", "ftp://me:canary@lists.example.org/a"):
        with pytest.raises(CoppiceError) as caught:
            fetch_list(uri, client, 10)
        assert "canary" not in caught.value.message
