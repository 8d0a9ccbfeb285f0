# SPDX-License-Identifier: Apache-2.0
"""A client for tests: it may connect to loopback, gives up soon, and does not pause between attempts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coppice.http import Client
from coppice.settings.model import TransferSettings

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.http.address import Resolver

LOOPBACK_SETTINGS = TransferSettings(
    list_size_limit_bytes=10**6,
    image_size_limit_bytes=10**9,
    connect_timeout_seconds=2.0,
    read_timeout_seconds=2.0,
    minimum_rate_bytes_per_second=1000,
    total_timeout_seconds=20.0,
    attempts=3,
    allow_private_addresses=True,
)


def loopback_client(
    *,
    resolver: Resolver | None = None,
    ca_file: Path | None = None,
    rate_window_seconds: float = 1.0,
    **changed: Any,
) -> Client:
    """Return a client with `LOOPBACK_SETTINGS`, some of them changed."""
    return Client(
        replace(LOOPBACK_SETTINGS, **changed),
        resolver=resolver,
        ca_file=ca_file,
        sleep=lambda _: None,
        rate_window_seconds=rate_window_seconds,
    )
