# SPDX-License-Identifier: Apache-2.0
"""`Dialer`: finds the addresses that may be connected to, and guards what is connected."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from coppice.errors import UnreachableError
from coppice.http.address import Resolver, addresses_of
from coppice.http.guard import Guard

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.settings.model import TransferSettings


class Dialer:
    """Applies the rules for addresses and rates; threads may share it.

    Args:
        settings: Limits.
        clock: For durations.
        resolver: Gives the addresses of a name.
        rate_window_seconds: Over which the least rate is averaged.
    """

    def __init__(
        self, settings: TransferSettings, *, clock: Clock, resolver: Resolver, rate_window_seconds: float
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._resolver = resolver
        self._rate_window_seconds = rate_window_seconds

    def addresses(self, host: str, port: int, *, allow_private: bool | None = None) -> tuple[str, ...]:
        """Return the addresses of ``host``, all of them judged.

        Args:
            host: Name or address.
            port: That is connected to.
            allow_private: Whether private addresses are fine; None: the setting.

        Raises:
            UnreachableError: The name cannot be resolved.
            AddressRefusedError: One of its addresses is not connected to.
        """
        allowed = self._settings.allow_private_addresses if allow_private is None else allow_private
        return addresses_of(host, port, resolver=self._resolver, allow_private=allowed)

    def guard(self, deadline: float) -> Guard:
        """Return a guard for one exchange that ends at the monotonic instant ``deadline``."""
        return Guard(
            self._clock,
            deadline=deadline,
            minimum_rate=self._settings.minimum_rate_bytes_per_second,
            window_seconds=self._rate_window_seconds,
            patience_seconds=self._settings.read_timeout_seconds,
        )

    def connect(self, host: str, port: int) -> socket.socket:
        """Return a connection to a judged address of ``host``, for what is not HTTP.

        Raises:
            UnreachableError: There is none.
            AddressRefusedError: One of its addresses is not connected to.
        """
        reason: OSError | None = None
        for address in self.addresses(host, port):
            try:
                found = socket.create_connection((address, port), timeout=self._settings.connect_timeout_seconds)
            except OSError as problem:
                reason = problem
                continue
            found.settimeout(self._settings.read_timeout_seconds)
            return found
        raise UnreachableError(
            f"{host} port {port} cannot be reached",
            details=None if reason is None else reason.strerror or str(reason),
            resolution="Check that the server runs and that this machine may connect to it.",
            context={"host": host},
        ) from reason
