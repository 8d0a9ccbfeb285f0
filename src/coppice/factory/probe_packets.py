# SPDX-License-Identifier: Apache-2.0
"""Frames of a network, written and read: as much of Ethernet, ARP, IP, ICMP, TCP and UDP as asking a port takes. Pure.

What comes from a guest is hostile: whatever does not fit is no frame (None), and never an error.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

BROADCAST = "ff:ff:ff:ff:ff:ff"
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_ICMP, _TCP, _UDP, _ICMP6 = 1, 6, 17, 58
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_ECHO_REPLY, _UNREACHABLE, _ECHO = 0, 3, 8
_UNREACHABLE6, _ECHO6, _ECHO_REPLY6, _SOLICIT6, _ADVERTISE6 = 1, 128, 129, 135, 136
_HOP_LIMIT_OF_NEIGHBOURS = 255
_ETHERNET_BYTES, _IPV4_BYTES, _IPV6_BYTES = 14, 20, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Arp:
    """Somebody asks who has an address (``is_request``), or says so."""

    is_request: bool
    source_mac: str
    source: Address
    target: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """What ARP is, for IPv6; of a request, ``target`` is who is looked for, of an answer, who was found."""

    is_request: bool
    source_mac: str
    source: Address
    target: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """A ping (``is_request``) or its answer."""

    is_request: bool
    source_mac: str
    source: Address
    target: Address
    identifier: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segment of TCP without data: ``syn`` and ``ack`` accept a connection, ``rst`` refuses one."""

    source_mac: str
    source: Address
    target: Address
    source_port: int
    target_port: int
    syn: bool
    ack: bool
    rst: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """A datagram of UDP."""

    source_mac: str
    source: Address
    target: Address
    source_port: int
    target_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """ICMP's word that something could not be delivered.

    Attributes:
        source_mac: Whose frame it is.
        source: Who says so.
        target: To whom.
        protocol: ``tcp`` or ``udp``.
        source_port: Of what could not be delivered.
        target_port: Likewise.
        is_prohibited: Whether a firewall refused it, instead of nobody being there.
    """

    source_mac: str
    source: Address
    target: Address
    protocol: str
    source_port: int
    target_port: int
    is_prohibited: bool


Packet: TypeAlias = Arp | Neighbour | Echo | Segment | Datagram | Unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From whom to whom a frame goes, by both of their addresses."""

    source_mac: str
    source: Address
    target_mac: str
    target: Address


def arp_frame(way: Way, *, is_request: bool) -> bytes:
    """Return a frame of ARP: the source asks for the target, or tells it of itself."""
    body = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1 if is_request else 2)
    body += _mac(way.source_mac) + way.source.packed
    body += (bytes(6) if is_request else _mac(way.target_mac)) + way.target.packed
    return _ethernet(way, _ARP, body)


def neighbour_frame(way: Way) -> bytes:
    """Return the frame by which the source, when it was asked for by IPv6, tells the target of itself."""
    # Solicited, and over what was known before; the option carries the link's address.
    body = struct.pack("!BBHI", _ADVERTISE6, 0, 0, 0x60000000) + way.source.packed + b"\x02\x01" + _mac(way.source_mac)
    return _ip_frame(way, _ICMP6, body)


def echo_frame(way: Way, *, identifier: int) -> bytes:
    """Return a ping."""
    is_six = way.source.version == 6  # noqa: PLR2004 - IPv6
    body = struct.pack("!BBHHH", _ECHO6 if is_six else _ECHO, 0, 0, identifier, 1) + b"boot-test"
    if not is_six:
        body = body[:2] + struct.pack("!H", _checksum(body)) + body[4:]
    return _ip_frame(way, _ICMP6 if is_six else _ICMP, body)


def syn_frame(way: Way, *, source_port: int, target_port: int) -> bytes:
    """Return the frame that asks for a connection."""
    body = struct.pack("!HHIIBBHHH", source_port, target_port, 0x0C099CE, 0, 5 << 4, _SYN, 1024, 0, 0)
    return _ip_frame(way, _TCP, body)


def datagram_frame(way: Way, *, source_port: int, target_port: int) -> bytes:
    """Return a datagram of four zeros."""
    return _ip_frame(way, _UDP, struct.pack("!HHHH", source_port, target_port, 12, 0) + bytes(4))


def read_frame(frame: bytes) -> Packet | None:
    """Return what ``frame`` says; None: nothing that is of interest here, or nonsense."""
    try:
        return _read(frame)
    except (struct.error, ValueError, IndexError):
        return None


def multicast_mac(group: Address) -> str:
    """Return the Ethernet address of an IPv6 multicast group."""
    return ":".join(f"{byte:02x}" for byte in b"\x33\x33" + group.packed[-4:])


def _read(frame: bytes) -> Packet | None:
    source_mac = ":".join(f"{byte:02x}" for byte in frame[6:12])
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == _ARP:
        return _read_arp(source_mac, frame[_ETHERNET_BYTES:])
    if kind == _IPV4:
        header = frame[_ETHERNET_BYTES:]
        length, (total,) = (header[0] & 15) * 4, struct.unpack_from("!H", header, 2)
        if header[0] >> 4 != 4 or length < _IPV4_BYTES or struct.unpack_from("!H", header, 6)[0] & 0x1FFF:  # noqa: PLR2004
            return None
        source, target = ipaddress.IPv4Address(header[12:16]), ipaddress.IPv4Address(header[16:20])
        return _read_inner(source_mac, source, target, header[9], header[length:total])
    if kind == _IPV6:
        header = frame[_ETHERNET_BYTES:]
        (total,) = struct.unpack_from("!H", header, 4)
        sender, receiver = ipaddress.IPv6Address(header[8:24]), ipaddress.IPv6Address(header[24:40])
        return _read_inner(source_mac, sender, receiver, header[6], header[_IPV6_BYTES : _IPV6_BYTES + total])
    return None


def _read_arp(source_mac: str, body: bytes) -> Packet | None:
    hardware, protocol, hardware_bytes, protocol_bytes, operation = struct.unpack_from("!HHBBH", body)
    if (hardware, protocol, hardware_bytes, protocol_bytes) != (1, _IPV4, 6, 4) or operation not in {1, 2}:
        return None
    return Arp(
        is_request=operation == 1,
        source_mac=source_mac,
        source=ipaddress.IPv4Address(body[14:18]),
        target=ipaddress.IPv4Address(body[24:28]),
    )


def _read_inner(source_mac: str, source: Address, target: Address, protocol: int, body: bytes) -> Packet | None:
    if protocol == _TCP:
        source_port, target_port, _, _, _, flags = struct.unpack_from("!HHIIBB", body)
        return Segment(
            source_mac=source_mac,
            source=source,
            target=target,
            source_port=source_port,
            target_port=target_port,
            syn=bool(flags & _SYN),
            ack=bool(flags & _ACK),
            rst=bool(flags & _RST),
        )
    if protocol == _UDP:
        source_port, target_port = struct.unpack_from("!HH", body)
        return Datagram(
            source_mac=source_mac, source=source, target=target, source_port=source_port, target_port=target_port
        )
    if protocol == _ICMP:
        return _read_icmp(source_mac, source, target, body)
    if protocol == _ICMP6:
        return _read_icmp6(source_mac, source, target, body)
    return None


def _read_icmp(source_mac: str, source: Address, target: Address, body: bytes) -> Packet | None:
    kind, code, _, identifier = struct.unpack_from("!BBHH", body)
    if kind in {_ECHO, _ECHO_REPLY}:
        return Echo(
            is_request=kind == _ECHO, source_mac=source_mac, source=source, target=target, identifier=identifier
        )
    if kind != _UNREACHABLE:
        return None
    inner = body[8:]
    length = (inner[0] & 15) * 4
    # Codes 9, 10 and 13: by order of an administrator.
    is_prohibited = code in {9, 10, 13}
    return _undelivered(source_mac, source, target, inner[9], inner[length:], is_prohibited=is_prohibited)


def _read_icmp6(source_mac: str, source: Address, target: Address, body: bytes) -> Packet | None:
    kind, code, _, identifier = struct.unpack_from("!BBHH", body)
    if kind in {_ECHO6, _ECHO_REPLY6}:
        return Echo(
            is_request=kind == _ECHO6, source_mac=source_mac, source=source, target=target, identifier=identifier
        )
    if kind in {_SOLICIT6, _ADVERTISE6}:
        about = ipaddress.IPv6Address(body[8:24])
        return Neighbour(is_request=kind == _SOLICIT6, source_mac=source_mac, source=source, target=about)
    if kind != _UNREACHABLE6:
        return None
    inner = body[8:]
    return _undelivered(source_mac, source, target, inner[6], inner[_IPV6_BYTES:], is_prohibited=code in {1, 5, 6})


def _undelivered(
    source_mac: str, source: Address, target: Address, protocol: int, ports: bytes, *, is_prohibited: bool
) -> Packet | None:
    if protocol not in {_TCP, _UDP}:
        return None
    source_port, target_port = struct.unpack_from("!HH", ports)
    return Unreachable(
        source_mac=source_mac,
        source=source,
        target=target,
        protocol="tcp" if protocol == _TCP else "udp",
        source_port=source_port,
        target_port=target_port,
        is_prohibited=is_prohibited,
    )


def _ip_frame(way: Way, protocol: int, body: bytes) -> bytes:
    body = _with_checksum(way, protocol, body)
    addresses = way.source.packed + way.target.packed
    if way.source.version == 6:  # noqa: PLR2004 - IPv6
        header = struct.pack("!IHBB", 6 << 28, len(body), protocol, _HOP_LIMIT_OF_NEIGHBOURS)
        return _ethernet(way, _IPV6, header + addresses + body)
    header = struct.pack("!BBHHHBBH", 0x45, 0, _IPV4_BYTES + len(body), 1, 0, 64, protocol, 0) + addresses
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    return _ethernet(way, _IPV4, header + body)


def _with_checksum(way: Way, protocol: int, body: bytes) -> bytes:
    place = {_TCP: 16, _UDP: 6, _ICMP6: 2}.get(protocol)
    if place is None:
        return body
    form = "!II" if way.source.version == 6 else "!HH"  # noqa: PLR2004 - IPv6
    counted = (len(body), protocol) if form == "!II" else (protocol, len(body))
    # Of UDP, 0 would say that there is no checksum.
    summed = _checksum(way.source.packed + way.target.packed + struct.pack(form, *counted) + body) or 0xFFFF
    return body[:place] + struct.pack("!H", summed) + body[place + 2 :]


def _checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ethernet(way: Way, kind: int, body: bytes) -> bytes:
    return (_mac(way.target_mac) + _mac(way.source_mac) + struct.pack("!H", kind) + body).ljust(60, b"\0")


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
