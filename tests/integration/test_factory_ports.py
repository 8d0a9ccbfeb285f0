# SPDX-License-Identifier: Apache-2.0
"""Ports that are free are so until a server takes them."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from coppice.factory import ports

pytestmark = pytest.mark.integration


@pytest.fixture(params=["32768 60999", "10000 65000"])
def lowest(request, tmp_path, monkeypatch) -> int:
    (tmp_path / "range").write_text(request.param)
    monkeypatch.setattr(ports, "_TO_CONNECTIONS", tmp_path / "range")
    return {"32768 60999": 16_384, "10000 65000": 1024}[request.param]


def test_they_are_free_and_all_different_and_none_that_a_connection_could_be_given(lowest: int) -> None:
    found = ports.free_ports(200)
    assert len(set(found)) == 200
    assert all(lowest <= port < ports._first_of_connections() for port in found)
    with ExitStack() as stack:
        for port in found:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))


def test_one_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch, lowest: int) -> None:
    taken, free = ports.free_ports(2)
    drawn = iter((taken - lowest, taken - lowest, free - lowest))
    monkeypatch.setattr(ports.secrets, "randbelow", lambda _: next(drawn))
    with socket.create_server(("127.0.0.1", taken)):
        assert ports.free_port() == free


@pytest.mark.parametrize("said", ["", "x", "0 65535", "1024 65535"])
def test_where_connections_are_given_every_port_any_free_one_serves(said, tmp_path, monkeypatch) -> None:
    (tmp_path / "range").write_text(said)
    monkeypatch.setattr(ports, "_TO_CONNECTIONS", tmp_path / "range")
    with socket.create_server(("127.0.0.1", ports.free_port())):
        pass
