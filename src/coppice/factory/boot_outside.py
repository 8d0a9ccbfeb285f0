# SPDX-License-Identifier: Apache-2.0
"""The firewall as declared, seen from outside: every port that the appliance opens lets in, and all else stays closed.

What is asked, and what is wrong with the answers, is pure; `coppice.factory.probe_wire` asks.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.factory.boot_model import BootLevel
from coppice.factory.bootstrap.overlay_firewall import SSH_PORT, VNC_PORT, WEB_CONSOLE_PORT
from coppice.factory.probe_wire import LINK_LOCAL, Answer, Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from coppice.definition.model import OpenPort
    from coppice.factory.boot_model import Promise
    from coppice.factory.machine import Network
    from coppice.factory.probe_packets import Address
    from coppice.factory.probe_wire import Wire

LISTENING_PORT = 47001
"""A boot test has somebody listen there, whom nothing opened: a port where nobody listens proves no firewall."""
LISTEN = f"""\
set -eu
systemd-run --quiet --unit=coppice-boot-test-port --socket-property=ListenStream={LISTENING_PORT} /bin/true
grep -q -i ':{LISTENING_PORT:04x} ' /proc/net/tcp /proc/net/tcp6
"""
# A network without a way out has no router, and who has none answers nobody from afar: the neighbour is one for a
# while.
_ROUTE = """\
set -eu
if ! ip -4 route show default | grep -q .; then
  card=$(ip -o -4 address show to {network} | sed -n 's/^[0-9]*: *\\([^ ]*\\) .*/\\1/p' | head -n 1)
  ip -4 route add default via {router} dev "$card"
fi
"""
# Addresses that documentation has for itself: nobody's, and not of the guest's network.
_FAR = (ipaddress.IPv4Address("198.51.100.77"), ipaddress.IPv6Address("2001:db8::77"))
_NEAR6 = ipaddress.IPv6Address("fec0::77")
_IPV6 = 6
_WELL_KNOWN_TCP = (
    *(7, 9, 13, 19, 21, SSH_PORT, 23, 25, 53, 79, 80, 88, 110, 111, 113, 119, 135, 139, 143, 179, 389, 443, 445, 465),
    *(512, 513, 514, 515, 548, 554, 587, 631, 636, 646, 873, 902, 990, 993, 995, 1080, 1099, 1433, 1521, 1723, 1883),
    *(2049, 2375, 2376, 2379, 2380, 3000, 3128, 3260, 3268, 3306, 3389, 4369, 4444, 5000, 5060, 5222, 5355, 5432),
    *(5601, 5672, 5900, VNC_PORT, 5902, 5938, 5984, 5985, 6000, 6001, 6379, 6443, 6667, 7001, 8000, 8008, 8009, 8080),
    *(8081, 8086, 8088, 8443, 8787, 8888, 9000, 9042, WEB_CONSOLE_PORT, 9091, 9092, 9100, 9200, 9300, 9418, 10000),
    *(10250, 11211, 15672, 16509, 25565, 27017, 50000, 61208),
)
_WELL_KNOWN_UDP = (53, 67, 69, 111, 123, 137, 161, 500, 514, 1194, 1900, 4500, 4789, 5353, 5355, 11211)
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, and whether it should be let in."""

    question: Question
    is_let_in: bool


def route_script(network: Network) -> str:
    """Return what makes the neighbour the guest's router, where it has none."""
    return _ROUTE.format(network=f"{network.prefix}.0/24", router=_near(network))


def look_from_outside(
    wire: Wire, promise: Promise, network: Network, *, level: BootLevel, is_routed: bool
) -> tuple[dict[str, str], list[str]]:
    """Ask the guest's ports from a neighbour's place; return facts, and what is wrong.

    Args:
        wire: The neighbour.
        promise: What should be let in.
        network: Whose network it is.
        level: A thorough look asks every port of TCP.
        is_routed: Whether the guest answers who is not on its network; by IPv6 it always does.
    """
    guest, near = ipaddress.IPv4Address(network.guest), _near(network)
    facts = {"address": str(guest)}
    if not wire.has_answered_arp(guest, source=near):
        return facts, [f"it has no address on its network: nobody there is {guest}"]
    facts["ping"] = "answered" if wire.pings(guest, source=near) else "silent"
    wrong = [] if facts["ping"] == "answered" else ["it does not answer a ping"]
    # Who took no address of the router's has one of its own still, and answers by it on its own network.
    near6, guest6 = next(
        ((asker, found) for asker in (_NEAR6, LINK_LOCAL) if (found := wire.find_by_ipv6(asker)) is not None),
        (_NEAR6, None),
    )
    facts["ipv6"] = "none" if guest6 is None else str(guest6)
    asked = [each for each in to_ask(promise, guest, near) if is_routed or each.question.source == near]
    if guest6 is not None:
        is_far_heard = near6 == _NEAR6
        asked += [each for each in to_ask(promise, guest6, near6) if is_far_heard or each.question.source == near6]
    answers = wire.ask(each.question for each in asked)
    if level is BootLevel.THOROUGH:
        known = {each.question.port for each in asked if each.question.protocol == "tcp"}
        every = [Question(near, guest, "tcp", port) for port in range(1, _LAST_PORT + 1) if port not in known]
        answers |= wire.ask(every)
        asked += [Asked(question=each, is_let_in=False) for each in every]
    facts |= _told(asked, answers)
    return facts, wrong + judge_answers(promise, asked, answers)


def to_ask(promise: Promise, guest: Address, near: Address) -> Iterator[Asked]:
    """Give every question about one address of the guest's, once."""
    far = next(each for each in _FAR if each.version == guest.version)
    ports = {(each.protocol, each.port) for each in promise.open_ports}
    for protocol, port in sorted(ports):
        rules = [each for each in promise.open_ports if (each.protocol, each.port) == (protocol, port)]
        for source in dict.fromkeys(_askers(rules, near, far)):
            yield Asked(
                question=Question(source, guest, protocol, port),
                is_let_in=any(_lets_in(rule, source) for rule in rules),
            )
    closed = [("tcp", port) for port in (*_WELL_KNOWN_TCP, LISTENING_PORT)] + [
        ("udp", port) for port in _WELL_KNOWN_UDP
    ]
    for protocol, port in closed:
        if (protocol, port) not in ports:
            yield Asked(question=Question(near, guest, protocol, port), is_let_in=False)


def judge_answers(promise: Promise, asked: Iterable[Asked], answers: Mapping[Question, Answer]) -> list[str]:
    """Return what is wrong with what ports answered; empty: nothing."""
    access = promise.access
    ways = ((access.ssh, SSH_PORT), (access.vnc, VNC_PORT), (access.web_console, WEB_CONSOLE_PORT))
    must_listen = {port for is_wanted, port in ways if is_wanted}
    wrong = []
    for each in asked:
        complaint = _complaint(each, answers[each.question], promise, must_listen)
        if complaint is not None:
            wrong.append(complaint)
    return wrong


def _complaint(each: Asked, answer: Answer, promise: Promise, must_listen: set[int]) -> str | None:
    question = each.question
    name, asker = f"{question.port}/{question.protocol}", f"when {question.source} asks"
    if not each.is_let_in:
        is_declared = any(
            (rule.protocol, rule.port) == (question.protocol, question.port) for rule in promise.open_ports
        )
        # Without a firewall, who asks makes no difference.
        if answer is not Answer.OPEN or (is_declared and not promise.has_firewall):
            return None
        return f"it lets in to {name}, which its definition does not open ({asker})"
    if question.protocol == "udp":
        # A service of UDP need not answer what it does not understand.
        return None if answer is not Answer.PROHIBITED else f"it refuses {name}, which is declared open"
    if answer in {Answer.SILENT, Answer.PROHIBITED}:
        return f"it lets nobody in to {name}, which is declared open ({asker})"
    if answer is Answer.REFUSED and question.port in must_listen:
        return f"nothing listens at {name}, by which people should come in"
    return None


def _near(network: Network) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(f"{network.prefix}.77")


def _askers(rules: list[OpenPort], near: Address, far: Address) -> Iterator[Address]:
    yield near
    yield far
    for rule in rules:
        source = None if rule.source is None else _inside(rule.source)
        if source is not None and source.version == near.version:
            yield source


def _inside(network: str) -> Address | None:
    whole = ipaddress.ip_network(network)
    inside = whole.network_address if whole.num_addresses == 1 else whole.network_address + whole.num_addresses // 2
    # From such an address nothing comes in whatever the firewall says.
    is_odd = inside.is_loopback or inside.is_multicast or inside.is_unspecified or inside.is_link_local
    return None if is_odd else inside


def _lets_in(rule: OpenPort, source: Address) -> bool:
    if rule.source is None:
        return True
    network = ipaddress.ip_network(rule.source)
    return source.version == network.version and source in network


def _told(asked: list[Asked], answers: Mapping[Question, Answer]) -> dict[str, str]:
    facts: dict[str, str] = {}
    let_in: dict[str, Answer] = {}
    closed: dict[Answer, set[tuple[str, int]]] = {}
    for each in asked:
        question, answer = each.question, answers[each.question]
        if each.is_let_in:
            let_in.setdefault(f"{question.port}/{question.protocol}", answer)
        elif answer is not Answer.OPEN:
            closed.setdefault(answer, set()).add((question.protocol, question.port))
    words = {Answer.OPEN: "", Answer.REFUSED: " (nothing listens)", Answer.SILENT: " (silent)"}
    facts["ports-let-in"] = ", ".join(f"{name}{words.get(answer, f' ({answer})')}" for name, answer in let_in.items())
    facts["ports-closed"] = ", ".join(f"{len(ports)} {answer}" for answer, ports in sorted(closed.items()))
    return facts
