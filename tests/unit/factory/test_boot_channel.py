# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import threading

import pytest

from coppice.errors import ToolFailedError
from coppice.factory.boot_channel import PortChannel

pytestmark = pytest.mark.unit


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_what_a_program_said_comes_back_by_its_token(ends):
    ours, theirs = ends

    def answer():
        token = theirs.recv(4096).split()[1].decode()
        theirs.sendall(f"noise\nbegin 0 0\nend 0\nbegin {token} 0\naGVsbG8=\nend {token}\n".encode())

    thread = threading.Thread(target=answer)
    thread.start()
    assert PortChannel(ours).run_script("true", 30).stdout == b"hello"
    thread.join()


def test_a_guest_that_talks_without_end_is_not_listened_to_for_ever(ends):
    ours, theirs = ends

    def flood():
        try:
            while True:
                theirs.sendall(b"x" * 65535 + b"\n")
        except OSError:
            return

    thread = threading.Thread(target=flood)
    thread.start()
    with pytest.raises(ToolFailedError, match="more than it was asked"):
        PortChannel(ours).run_script("true", 600)
    ours.close()
    thread.join()
