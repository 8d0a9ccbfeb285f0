# SPDX-License-Identifier: Apache-2.0
"""The transport, held to Coppice's suite; it is opened as Coppice opens it, by its entry point."""

from __future__ import annotations

import os
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.transports.members import open_transport
from coppice.errors import SettingsError
from coppice.testing.contracts.transports import TransportContract, TransportStand
from coppice.testing.server import StaticServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from coppice.cloud.transports.transport import Offered

WHERE = "clouds.test.transport"
LONG_AGO_SECONDS = 48 * 3600


class WebrootStand(TransportStand):
    """A directory, and the web server that serves it."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.transport = open_transport({"driver": "webroot", "directory": str(directory), "url": url}, WHERE)

    def fetch(self, offered: Offered) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(offered.path_or_url, timeout=60) as answer:
            data: bytes = answer.read()
            return data

    def left_behind(self) -> Sequence[str]:
        return sorted(path.name for path in self.directory.iterdir())

    def abandon(self) -> None:
        left = self.directory / f"coppice-{'0' * 64}.partial"
        left.write_bytes(b"half")
        long_ago = time.time() - LONG_AGO_SECONDS
        os.utime(left, (long_ago, long_ago))


class TestWebroot(TransportContract):
    @pytest.fixture
    def stand(self, tmp_path: Path) -> Iterator[TransportStand]:
        directory = tmp_path / "www"
        directory.mkdir()
        with StaticServer(directory) as server:
            yield WebrootStand(directory, server.url().rstrip("/"))


@pytest.mark.parametrize(
    "options", [{}, {"directory": "here"}, {"directory": "/x", "url": "http://x/$(reboot)"}, {"directoryy": "/x"}]
)
def test_options_that_cannot_be_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=WHERE):
        open_transport({"driver": "webroot", **options}, WHERE)
