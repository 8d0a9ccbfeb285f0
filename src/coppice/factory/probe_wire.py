# SPDX-License-Identifier: Apache-2.0
"""A neighbour of the guest: another machine on its network, that asks its ports from outside and reads the answers.

QEMU's own router answers for the guest before the guest does, so a connection through it tells nothing of a firewall.
This neighbour speaks frames over a socket that QEMU was handed: it takes no rights on the host, and nothing of the
host's network. It never has a connection: a port is asked whether it would take one, and what comes back is read.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.factory.machine import GUEST_MAC
from coppice.factory.probe_packets import (
    BROADCAST,
    Address,
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coppice.factory.probe_packets import Packet

NEIGHBOUR_MAC = "52:54:00:c0:99:1d"
_ALL_NODES = ipaddress.IPv6Address("ff02::1")
LINK_LOCAL = ipaddress.IPv6Address("fe80::c0:99:1d")
_LONGEST_FRAME = 65535 + 18
_ECHO_IDENTIFIER = 0x0C0
_FIRST_PORT = 32768
_LAST_PORT = 60999
_ROUNDS = 3
_ROUND_SECONDS = 2.0
# Asked so many at once, then a breath: an emulated card has room for 256 frames.
_BURST = 64
_BREATH_SECONDS = 0.05


class Answer(StrEnum):
    """What a port did when it was asked from outside."""

    OPEN = "open"
    """Somebody listens there, and is let in to."""
    REFUSED = "refused"
    """It is let in to, and nobody listens; or a firewall that says so politely."""
    PROHIBITED = "prohibited"
    """A firewall says no."""
    SILENT = "silent"
    """Nothing came back."""


@dataclass(frozen=True, slots=True, order=True)
class Question:
    """A port that is asked.

    Attributes:
        source: Who asks.
        target: Whom.
        protocol: ``tcp`` or ``udp``.
        port: Which.
    """

    source: Address
    target: Address
    protocol: str
    port: int


@dataclass(slots=True)
class _Heard:
    """What was heard until now."""

    answers: dict[tuple[Address, str, int, int], Answer] = field(default_factory=dict)
    echoes: set[tuple[Address, Address]] = field(default_factory=set)
    guest_addresses: set[Address] = field(default_factory=set)


class Wire:
    """The neighbour's end of the wire; a thread reads it, and answers who asks for the neighbour's addresses."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._heard = _Heard()
        self._own: set[Address] = {LINK_LOCAL}
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._next_port = _FIRST_PORT
        self._reader = threading.Thread(target=self._read, name="boot-test-wire", daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Leave the network."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._end.close()

    def has_answered_arp(self, target: Address, *, source: Address) -> bool:
        """Tell whether ``target`` says by ARP that it is there."""
        frame = arp_frame(self._way(source, target, to_mac=BROADCAST), is_request=True)
        return self._until(lambda: target in self._heard.guest_addresses, frame)

    def pings(self, target: Address, *, source: Address) -> bool:
        """Tell whether ``target`` answers a ping of ``source``."""
        frame = echo_frame(self._way(source, target), identifier=_ECHO_IDENTIFIER)
        return self._until(lambda: (target, source) in self._heard.echoes, frame)

    def find_by_ipv6(self, source: Address = LINK_LOCAL) -> Address | None:
        """Return the address by which the guest answers a ping of all from ``source``; None: it does not."""
        way = self._way(source, _ALL_NODES, to_mac=multicast_mac(_ALL_NODES))
        self._until(lambda: bool(self._echoed_to(source)), echo_frame(way, identifier=_ECHO_IDENTIFIER))
        return next(iter(sorted(self._echoed_to(source), key=str)), None)

    def ask(self, questions: Iterable[Question]) -> dict[Question, Answer]:
        """Ask ports, those that stay silent three times; return what each answered."""
        wanted = {self._port_for(question): question for question in questions}
        for _ in range(_ROUNDS):
            waiting = {key: question for key, question in wanted.items() if key not in self._heard.answers}
            for number, (key, question) in enumerate(waiting.items(), start=1):
                self._ask(question, key[3])
                if number % _BURST == 0:
                    time.sleep(_BREATH_SECONDS)
            if self._wait(lambda: wanted.keys() <= self._heard.answers.keys(), _ROUND_SECONDS):
                break
        return {question: self._heard.answers.get(key, Answer.SILENT) for key, question in wanted.items()}

    def _port_for(self, question: Question) -> tuple[Address, str, int, int]:
        # A port of its own for each question: what comes back to it can be nothing else's answer.
        own = self._next_port
        self._next_port = own + 1 if own < _LAST_PORT else _FIRST_PORT
        return (question.target, question.protocol, question.port, own)

    def _ask(self, question: Question, own_port: int) -> None:
        make = syn_frame if question.protocol == "tcp" else datagram_frame
        way = self._way(question.source, question.target)
        self._send(make(way, source_port=own_port, target_port=question.port))

    def _way(self, source: Address, target: Address, *, to_mac: str = GUEST_MAC) -> Way:
        self._own.add(source)
        return Way(source_mac=NEIGHBOUR_MAC, source=source, target_mac=to_mac, target=target)

    def _until(self, holds: Callable[[], bool], frame: bytes) -> bool:
        for _ in range(_ROUNDS):
            self._send(frame)
            if self._wait(holds, _ROUND_SECONDS):
                return True
        return False

    def _wait(self, holds: Callable[[], bool], seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(holds, timeout=seconds)

    def _echoed_to(self, source: Address) -> list[Address]:
        return [answered for answered, asked in tuple(self._heard.echoes) if asked == source]

    def _send(self, frame: bytes) -> None:
        # QEMU gone: whoever waits for an answer gets none.
        with self._sending, contextlib.suppress(OSError):
            self._end.sendall(struct.pack("!I", len(frame)) + frame)

    def _read(self) -> None:
        stream = self._end.makefile("rb")
        with contextlib.suppress(OSError), stream:
            while len(head := stream.read(4)) == 4:  # noqa: PLR2004 - a length
                (length,) = struct.unpack("!I", head)
                if length > _LONGEST_FRAME:
                    return
                packet = read_frame(stream.read(length))
                if packet is not None and packet.source_mac == GUEST_MAC:
                    self._hear(packet)

    def _hear(self, packet: Packet) -> None:
        match packet:
            case Arp(is_request=True, source=asking, target=wanted) if wanted in self._own:
                self._send(arp_frame(self._way(wanted, asking), is_request=False))
            case Neighbour(is_request=True, source=asking, target=wanted) if wanted in self._own:
                self._send(neighbour_frame(self._way(wanted, asking)))
            case _:
                with self._changed:
                    self._note(packet)
                    self._changed.notify_all()

    def _note(self, packet: Packet) -> None:
        heard = self._heard
        match packet:
            case Arp(is_request=False):
                heard.guest_addresses.add(packet.source)
            case Echo(is_request=False, identifier=identifier) if identifier == _ECHO_IDENTIFIER:
                heard.echoes.add((packet.source, packet.target))
            case Segment(rst=True):
                heard.answers.setdefault((packet.source, "tcp", packet.source_port, packet.target_port), Answer.REFUSED)
            case Segment(syn=True, ack=True):
                heard.answers[packet.source, "tcp", packet.source_port, packet.target_port] = Answer.OPEN
            case Datagram():
                heard.answers[packet.source, "udp", packet.source_port, packet.target_port] = Answer.OPEN
            case Unreachable():
                key = (packet.source, packet.protocol, packet.target_port, packet.source_port)
                heard.answers.setdefault(key, Answer.PROHIBITED if packet.is_prohibited else Answer.REFUSED)
            case _:
                pass
