# SPDX-License-Identifier: Apache-2.0
"""Where the service listens is changed while it runs, with a stand-in for sockets."""

from __future__ import annotations

import pytest

from coppice.errors import MachineError
from coppice.schedule import service
from coppice.schedule.service import Door

pytestmark = pytest.mark.unit


class Network:
    """Knows which addresses are taken; ``0.0.0.0`` takes all of them."""

    def __init__(self, *taken) -> None:
        self.taken = list(taken)

    def listener(self, text, _answer):
        host, _, port = text.partition(":")
        for each in self.taken:
            other, _, same = each.partition(":")
            if same == port and (other == host or "0.0.0.0" in {other, host}):  # noqa: S104 - a name in a table
                raise MachineError(f"cannot listen on {text}")
        self.taken.append(text)
        return Listening(self, text, int(port))


class Listening:
    def __init__(self, network, text, port) -> None:
        self.network, self.text, self.port = network, text, port

    def close(self):
        self.network.taken.remove(self.text)


@pytest.fixture
def opened(monkeypatch):
    """Return a door, the network, and the ports that were told."""
    network, told = Network("10.0.0.1:5"), []
    monkeypatch.setattr(service, "Listener", network.listener)

    class NoPages:
        answer = None

    return Door(NoPages(), told.append), network, told


def test_the_service_goes_from_one_address_to_another_and_to_none(opened):
    door, network, told = opened
    for text in ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:2", None, "127.0.0.1:1"):
        door.open(text)
        assert network.taken == ["10.0.0.1:5", *([text] if text else [])]
    assert told == [1, 2, 1]
    door.close()
    assert network.taken == ["10.0.0.1:5"]


def test_the_same_port_on_all_addresses_is_taken_from_itself(opened):
    door, network, told = opened
    door.open("127.0.0.1:1")
    door.open("0.0.0.0:1")
    door.open("127.0.0.1:1")
    assert network.taken == ["10.0.0.1:5", "127.0.0.1:1"]
    assert told == [1, 1, 1]


def test_where_an_address_is_taken_all_stays_as_it_was(opened):
    door, network, told = opened
    door.open("127.0.0.1:1")
    with pytest.raises(MachineError):
        door.open("10.0.0.1:5")
    assert network.taken == ["10.0.0.1:5", "127.0.0.1:1"]
    assert told == [1]


def test_at_the_beginning_an_address_that_is_taken_is_an_error(opened):
    door, _, _ = opened
    with pytest.raises(MachineError):
        door.open("10.0.0.1:5")
