# SPDX-License-Identifier: Apache-2.0
"""Which addresses are connected to: decided on the resolved address, never on how it was written.

A name is resolved once. Every address that it has is judged, one bad address refuses the name, and the connection
goes to an address that was judged: a second answer of the name server never counts.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence

from coppice.errors import AddressRefusedError, UnreachableError

Resolver = Callable[[str, int], Sequence[str]]
"""Takes a host name and a port, returns numeric addresses, most wanted first; raises OSError."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Site-local addresses, and a network's own way of carrying IPv4 in IPv6: Python takes them for global.
_LOCAL = (ipaddress.ip_network("fec0::/10"), ipaddress.ip_network("64:ff9b:1::/48"))
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "240.0.0.0/4",
        "fe80::/10",
        # Where clouds answer machines about themselves, beside 169.254.169.254: credentials are handed out there.
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::254/128",
    )
)


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of ``host`` as the machine's resolver gives them."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def refusal(text: str, *, allow_private: bool) -> str | None:  # noqa: PLR0911 - a table of reasons
    """Return why the address ``text`` is not connected to, or None when it is fine.

    Args:
        text: A numeric IPv4 or IPv6 address.
        allow_private: Whether private and loopback addresses are fine.
    """
    try:
        address: _Address = ipaddress.ip_address(text)
    except ValueError:
        return "is not a numeric address"
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return "is a link-local address"
    for each in _layers(address):
        if each.is_link_local or any(each.version == network.version and each in network for network in _NEVER):
            return "is a link-local, metadata or reserved address"
        if each.is_multicast:
            return "is a multicast address"
        if each.is_unspecified:
            return "is the unspecified address"
    if not allow_private and (any(address in network for network in _LOCAL) or not _are_global(address)):
        return "is a private or loopback address"
    return None


def _are_global(address: _Address) -> bool:
    return all(each.is_global for each in _layers(address))


def addresses_of(host: str, port: int, *, resolver: Resolver, allow_private: bool) -> tuple[str, ...]:
    """Resolve ``host`` once and return its addresses, all of them judged.

    Raises:
        UnreachableError: The name cannot be resolved.
        AddressRefusedError: One of its addresses is not connected to.
    """
    try:
        found = tuple(resolver(host, port))
    except (OSError, UnicodeError) as problem:
        raise UnreachableError(
            f"the name {host!r} cannot be resolved",
            details=str(problem),
            resolution="Check the name, and this machine's name servers.",
            context={"host": host},
        ) from problem
    if not found:
        raise UnreachableError(f"the name {host!r} has no address", context={"host": host})
    for address in found:
        reason = refusal(address, allow_private=allow_private)
        if reason is not None:
            raise AddressRefusedError(
                f"{host!r} leads to {address}, which {reason}",
                resolution=(
                    "Set transfer.allow_private_addresses if this site has its mirror there."
                    if "private" in reason
                    else "Nothing of Coppice connects there; correct the address."
                ),
                context={"host": host, "address": address},
            )
    return found


def _layers(address: _Address) -> tuple[_Address, ...]:  # noqa: PLR0911 - a table of wrappings
    """Return the addresses that decide: an address that carries another one is as good as what it carries."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return (address, *address.teredo)
    if int(address) >> 32 == 0 and int(address) > 1:
        return (address, ipaddress.IPv4Address(int(address)))
    return (address,)
