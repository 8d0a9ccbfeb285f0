# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress
import random
import struct

import pytest

from coppice.factory.probe_packets import (
    Arp,
    Datagram,
    Echo,
    Neighbour,
    Segment,
    Unreachable,
    Way,
    arp_frame,
    datagram_frame,
    echo_frame,
    multicast_mac,
    neighbour_frame,
    read_frame,
    syn_frame,
)

pytestmark = pytest.mark.unit

OURS, THEIRS = "52:54:00:00:00:01", "52:54:00:00:00:02"
FOUR = Way(
    source_mac=OURS,
    source=ipaddress.ip_address("10.0.2.77"),
    target_mac=THEIRS,
    target=ipaddress.ip_address("10.0.2.15"),
)
SIX = Way(
    source_mac=OURS,
    source=ipaddress.ip_address("fec0::77"),
    target_mac=THEIRS,
    target=ipaddress.ip_address("fec0::15"),
)
WAYS = pytest.mark.parametrize("way", [FOUR, SIX], ids=["ipv4", "ipv6"])


def summed(data):
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def inner(way, frame):
    """The part that TCP, UDP or ICMP have, and what IP says that it is about."""
    if way is FOUR:
        length = struct.unpack_from("!H", frame, 16)[0]
        body, protocol = frame[34 : 14 + length], frame[23]
        return body, way.source.packed + way.target.packed + struct.pack("!HH", protocol, len(body))
    body, protocol = frame[54 : 54 + struct.unpack_from("!H", frame, 18)[0]], frame[20]
    return body, way.source.packed + way.target.packed + struct.pack("!II", len(body), protocol)


@WAYS
def test_what_is_written_is_read_again(way):
    assert read_frame(syn_frame(way, source_port=40000, target_port=80)) == Segment(
        source_mac=OURS,
        source=way.source,
        target=way.target,
        source_port=40000,
        target_port=80,
        syn=True,
        ack=False,
        rst=False,
    )
    assert read_frame(datagram_frame(way, source_port=40000, target_port=53)) == Datagram(
        source_mac=OURS, source=way.source, target=way.target, source_port=40000, target_port=53
    )
    assert read_frame(echo_frame(way, identifier=7)) == Echo(
        is_request=True, source_mac=OURS, source=way.source, target=way.target, identifier=7
    )


@WAYS
def test_receivers_that_check_sums_find_them_right(way):
    for frame in (syn_frame(way, source_port=1, target_port=2), datagram_frame(way, source_port=1, target_port=2)):
        body, pseudo = inner(way, frame)
        assert summed(pseudo + body) == 0xFFFF
    body, pseudo = inner(way, echo_frame(way, identifier=7))
    assert summed(body if way is FOUR else pseudo + body) == 0xFFFF
    if way is FOUR:
        assert summed(echo_frame(way, identifier=7)[14:34]) == 0xFFFF


def test_arp_asks_all_and_tells_one():
    asked = read_frame(arp_frame(FOUR, is_request=True))
    assert asked == Arp(is_request=True, source_mac=OURS, source=FOUR.source, target=FOUR.target)
    told = arp_frame(FOUR, is_request=False)
    assert read_frame(told) == Arp(is_request=False, source_mac=OURS, source=FOUR.source, target=FOUR.target)
    assert told[32:38] == bytes.fromhex(THEIRS.replace(":", ""))
    assert len(told) == 60


def test_a_neighbour_of_ipv6_tells_its_own_address_and_link():
    frame = neighbour_frame(SIX)
    assert read_frame(frame) == Neighbour(is_request=False, source_mac=OURS, source=SIX.source, target=SIX.source)
    assert frame[21] == 255, "from the same link: never routed"
    assert frame.endswith(b"\x02\x01" + bytes.fromhex(OURS.replace(":", "")))
    assert multicast_mac(ipaddress.ip_address("ff02::1")) == "33:33:00:00:00:01"


def refused(code, asked):
    """A word of ICMP about a frame of ours, as a guest would say it."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + 8 + len(asked), 1, 0, 64, 1, 0)
    header += FOUR.target.packed + FOUR.source.packed
    body = struct.pack("!BBHI", 3, code, 0, 0) + asked
    link = bytes.fromhex(OURS.replace(":", "")) + bytes.fromhex(THEIRS.replace(":", "")) + b"\x08\x00"
    return link + header + body


@pytest.mark.parametrize(("code", "is_prohibited"), [(3, False), (1, False), (13, True), (10, True), (9, True)])
def test_what_could_not_be_delivered_is_known_by_its_ports(code, is_prohibited):
    asked = datagram_frame(FOUR, source_port=40000, target_port=53)[14:]
    assert read_frame(refused(code, asked)) == Unreachable(
        source_mac=THEIRS,
        source=FOUR.target,
        target=FOUR.source,
        protocol="udp",
        source_port=40000,
        target_port=53,
        is_prohibited=is_prohibited,
    )


def test_answers_of_tcp_are_told_apart():
    frame = bytearray(syn_frame(FOUR, source_port=80, target_port=40000))
    frame[47] = 0x12
    accepted = read_frame(bytes(frame))
    assert (accepted.syn, accepted.ack, accepted.rst) == (True, True, False)
    frame[47] = 0x14
    closed = read_frame(bytes(frame))
    assert (closed.syn, closed.ack, closed.rst) == (False, True, True)


def test_nonsense_of_a_guest_is_no_frame_and_no_error():
    chance = random.Random(7)  # noqa: S311 - no secret
    good = [
        arp_frame(FOUR, is_request=True),
        syn_frame(FOUR, source_port=1, target_port=2),
        syn_frame(SIX, source_port=1, target_port=2),
        neighbour_frame(SIX),
        refused(3, datagram_frame(FOUR, source_port=1, target_port=2)[14:]),
    ]
    read = 0
    for _ in range(3000):
        frame = bytearray(chance.choice(good))
        for _ in range(chance.randrange(1, 6)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        read += read_frame(bytes(frame[: chance.randrange(len(frame) + 1)])) is not None
    assert 0 < read < 3000
    assert read_frame(b"") is None
    fragment = bytearray(syn_frame(FOUR, source_port=1, target_port=2))
    fragment[21] = 1
    assert read_frame(bytes(fragment)) is None, "the rest of something has no ports"
