# SPDX-License-Identifier: Apache-2.0
"""`Router`: how a host is reached: straight, or through the proxy of the settings.

Where a name can be resolved here, its addresses are judged here, proxy or not. Through a tunnel (``https``) the proxy
is told the judged address, so that it connects where was judged. A request in clear (``http``) must name the host (RFC
9112, 3.2.2), and the proxy resolves it once more. A name that only the proxy can resolve is the proxy's to judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import AddressRefusedError, SettingsError, UnreachableError
from coppice.http.location import Location, parse_location, show

if TYPE_CHECKING:
    from coppice.http.dial import Dialer
    from coppice.settings.model import TransferSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a connection goes.

    Attributes:
        address: Numeric address that is connected to.
        port: Likewise.
        proxy: Whose address that is; None: the server's own.
        destination: What the proxy is told to connect to, for a tunnel.
    """

    address: str
    port: int
    proxy: Location | None = None
    destination: str = ""


class Router:
    """Finds routes; threads may share it.

    Args:
        settings: The proxy, and who needs none.
        dialer: Judges addresses.

    Raises:
        SettingsError: The proxy is not of the form ``http://host:port``.
    """

    def __init__(self, settings: TransferSettings, dialer: Dialer) -> None:
        self._dialer = dialer
        self._proxy = None if settings.proxy is None else _proxy(settings.proxy)
        self._without = tuple(each.lower().rstrip(".") for each in settings.no_proxy)

    def proxy_for(self, location: Location) -> Location | None:
        """Return the proxy that a location is asked through; None: it is asked straight."""
        host = location.host.rstrip(".")
        is_excepted = any(host == each or (each.startswith(".") and host.endswith(each)) for each in self._without)
        return None if is_excepted else self._proxy

    def routes(self, location: Location) -> tuple[Route, ...]:
        """Return the ways to a location, most wanted first.

        Raises:
            UnreachableError: Its name, or the proxy's, cannot be resolved.
            AddressRefusedError: One of its addresses is not connected to.
        """
        proxy = self.proxy_for(location)
        if proxy is None:
            found = self._dialer.addresses(location.host, location.port)
            return tuple(Route(address=address, port=location.port) for address in found)
        try:
            destinations = self._dialer.addresses(location.host, location.port)
        except UnreachableError:
            # Behind a proxy, names of the world are often not to be resolved.
            destinations = (location.host,)
        if location.scheme == "http":
            destinations = destinations[:1]
        # The site named its proxy: it may well have a private address.
        addresses = self._dialer.addresses(proxy.host, proxy.port, allow_private=True)
        return tuple(
            Route(address=address, port=proxy.port, proxy=proxy, destination=destination)
            for destination in destinations
            for address in addresses
        )


def _proxy(text: str) -> Location:
    try:
        location = parse_location(text)
    except AddressRefusedError as problem:
        raise SettingsError(
            f"transfer.proxy is no proxy: {problem.message}", resolution="Write http://host:port."
        ) from problem
    if location.scheme != "http" or location.target != "/":
        raise SettingsError(
            f"transfer.proxy is {show(text)}; it has the form http://host:port",
            resolution="A proxy is spoken to over http; what it carries for https is encrypted through it.",
        )
    return location
