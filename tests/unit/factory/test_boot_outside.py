# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress

import pytest

from coppice.definition.model import Access, OpenPort
from coppice.factory.boot_model import BootLevel, Promise
from coppice.factory.boot_outside import LISTENING_PORT, judge_answers, look_from_outside, route_script, to_ask
from coppice.factory.machine import Network
from coppice.factory.probe_wire import LINK_LOCAL, Answer, Question

pytestmark = pytest.mark.unit

GUEST, NEAR = ipaddress.ip_address("10.0.2.15"), ipaddress.ip_address("10.0.2.77")
FAR = ipaddress.ip_address("198.51.100.77")
GUEST6, NEAR6 = ipaddress.ip_address("fec0::15"), ipaddress.ip_address("fec0::77")
WEB = Promise(
    user="debian",
    open_ports=(
        OpenPort(port=22),
        OpenPort(port=80),
        OpenPort(port=53, protocol="udp"),
        OpenPort(port=5432, source="10.0.0.0/8"),
        OpenPort(port=5432, source="fd00::/8"),
    ),
)


class Neighbour:
    """A wire on which a guest answers as its firewall is told to."""

    def __init__(self, lets_in, listening, *, is_there=True, pings=True, ipv6=GUEST6) -> None:
        self.lets_in, self.listening = lets_in, listening
        self.is_there, self.ping, self.ipv6 = is_there, pings, ipv6
        self.asked = []

    def has_answered_arp(self, target, *, source):
        return self.is_there

    def pings(self, target, *, source):
        return self.ping

    def find_by_ipv6(self, source):
        return self.ipv6

    def ask(self, questions):
        questions = list(questions)
        self.asked += questions
        return {each: self.answer(each) for each in questions}

    def answer(self, question):
        if not self.lets_in(question):
            return Answer.SILENT
        return Answer.OPEN if (question.protocol, question.port) in self.listening else Answer.REFUSED


def as_declared(question):
    if (question.protocol, question.port) in {("tcp", 22), ("tcp", 80), ("udp", 53)}:
        return True
    inside = ("10.0.0.0/8", "fd00::/8")
    return (question.protocol, question.port) == ("tcp", 5432) and any(
        question.source in ipaddress.ip_network(each)
        for each in inside
        if ipaddress.ip_network(each).version == question.source.version
    )


ALL = {("tcp", 22), ("tcp", 80), ("tcp", 5432), ("tcp", LISTENING_PORT)}


def looked(neighbour, promise=WEB, *, level=BootLevel.STANDARD, is_routed=True):
    return look_from_outside(neighbour, promise, Network(), level=level, is_routed=is_routed)


def test_a_firewall_as_declared_is_right_from_every_side():
    neighbour = Neighbour(as_declared, ALL)
    facts, wrong = looked(neighbour)
    assert wrong == []
    assert facts["address"] == "10.0.2.15"
    assert facts["ping"] == "answered"
    assert facts["ipv6"] == "fec0::15"
    assert facts["ports-let-in"] == "22/tcp, 80/tcp, 5432/tcp, 53/udp (nothing listens)"
    askers = {each.source for each in neighbour.asked if each.port == 5432}
    assert {NEAR, FAR, NEAR6} < askers
    assert any(str(each).startswith("fd") for each in askers), "from inside each network that may come in"


def test_every_address_of_the_guest_is_asked_for_what_should_be_closed():
    for guest, near in ((GUEST, NEAR), (GUEST6, NEAR6)):
        closed = [each.question for each in to_ask(WEB, guest, near) if not each.is_let_in]
        assert Question(near, guest, "tcp", LISTENING_PORT) in closed
        assert len(closed) > 100
        assert not {(each.protocol, each.port) for each in closed} & {("tcp", 22), ("tcp", 80), ("udp", 53)}


@pytest.mark.parametrize(
    ("lets_in", "said"),
    [
        (lambda _: True, f"it lets in to {LISTENING_PORT}/tcp, which its definition does not open"),
        (
            lambda question: as_declared(question) or question.port == 5432,
            "5432/tcp, which its definition does not open",
        ),
        (lambda question: as_declared(question) and question.port != 80, "it lets nobody in to 80/tcp"),
        (lambda question: as_declared(question) and question.port != 22, "it lets nobody in to 22/tcp"),
        (lambda question: as_declared(question) and question.source.version == 4, "it lets nobody in to 80/tcp"),
    ],
    ids=["none", "source-ignored", "closed", "ssh-closed", "ipv6-forgotten"],
)
def test_a_firewall_that_is_not_as_declared_is_told(lets_in, said):
    _, wrong = looked(Neighbour(lets_in, ALL))
    assert any(said in each for each in wrong), wrong


def test_a_port_that_is_open_without_a_listener_is_let_in_but_ssh_must_be_served():
    facts, wrong = looked(Neighbour(as_declared, ALL - {("tcp", 80)}))
    assert wrong == []
    assert "80/tcp (nothing listens)" in facts["ports-let-in"]
    _, wrong = looked(Neighbour(as_declared, ALL - {("tcp", 22)}))
    assert set(wrong) == {"nothing listens at 22/tcp, by which people should come in"}


def test_without_a_firewall_who_asks_makes_no_difference_but_what_listens_must_be_declared():
    open_house = Promise(user="u", has_firewall=False, open_ports=WEB.open_ports)
    everybody = lambda _: True  # noqa: E731 - as in the table above
    assert looked(Neighbour(everybody, ALL - {("tcp", LISTENING_PORT)}), open_house)[1] == []
    _, wrong = looked(Neighbour(everybody, {("tcp", 22), ("tcp", 5355)}), open_house)
    assert set(wrong) >= {"it lets in to 5355/tcp, which its definition does not open (when 10.0.2.77 asks)"}


def test_a_refusal_by_the_firewall_is_not_letting_in():
    promise = Promise(user="u", access=Access(ssh=False), open_ports=(OpenPort(port=53, protocol="udp"),))
    asked = list(to_ask(promise, GUEST, NEAR))
    answers = {each.question: Answer.PROHIBITED for each in asked}
    assert judge_answers(promise, asked, answers) == ["it refuses 53/udp, which is declared open"] * 2


def test_a_guest_that_is_not_there_is_asked_nothing():
    neighbour = Neighbour(as_declared, ALL, is_there=False)
    assert looked(neighbour)[1] == ["it has no address on its network: nobody there is 10.0.2.15"]
    assert neighbour.asked == []


def test_a_guest_that_answers_no_ping_and_has_no_ipv6_is_told():
    facts, wrong = looked(Neighbour(as_declared, ALL, pings=False, ipv6=None))
    assert wrong == ["it does not answer a ping"]
    assert facts["ipv6"] == "none"


def test_who_has_no_router_is_asked_by_its_own_network_alone():
    neighbour = Neighbour(as_declared, ALL, ipv6=None)
    assert looked(neighbour, is_routed=False)[1] == []
    assert {each.source for each in neighbour.asked} == {NEAR}
    assert "via 10.0.2.77" in route_script(Network())


def test_a_thorough_look_asks_every_port_once():
    neighbour = Neighbour(as_declared, ALL, ipv6=None)
    facts, wrong = looked(neighbour, level=BootLevel.THOROUGH)
    assert wrong == []
    asked = [each.port for each in neighbour.asked if each.source == NEAR and each.protocol == "tcp"]
    assert sorted(asked) == list(range(1, 65536))
    assert facts["ports-closed"].endswith(" silent")


def test_odd_sources_of_rules_are_not_asked_from():
    odd = Promise(
        user="u", open_ports=(OpenPort(port=80, source="127.0.0.0/8"), OpenPort(port=80, source="10.9.8.7/32"))
    )
    sources = {each.question.source for each in to_ask(odd, GUEST, NEAR) if each.question.port == 80}
    assert sources == {NEAR, FAR, ipaddress.ip_address("10.9.8.7")}


class LocalNeighbour(Neighbour):
    """A guest that has no IPv6 address but the one of its card."""

    def find_by_ipv6(self, source):
        return ipaddress.ip_address("fe80::15") if source == LINK_LOCAL else None


def test_who_has_an_ipv6_address_of_its_card_alone_is_asked_by_it_too():
    wire = LocalNeighbour(as_declared, {("tcp", 22), ("tcp", 80), ("udp", 53)})
    facts, wrong = look_from_outside(wire, WEB, Network(), level=BootLevel.STANDARD, is_routed=True)
    assert facts["ipv6"] == "fe80::15"
    assert wrong == []
    open_to_all = LocalNeighbour(
        lambda question: question.target.version == 6 or as_declared(question), {("tcp", 3306)}
    )
    _, wrong = look_from_outside(open_to_all, WEB, Network(), level=BootLevel.STANDARD, is_routed=True)
    assert f"it lets in to 3306/tcp, which its definition does not open (when {LINK_LOCAL} asks)" in wrong
