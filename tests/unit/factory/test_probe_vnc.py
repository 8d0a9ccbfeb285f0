# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import struct

import pytest

from coppice.factory.probe_vnc import Picture, take_picture

pytestmark = pytest.mark.unit


def picture(pixels):
    return Picture(name="", width=len(pixels), height=1, pixels=struct.pack(f"<{len(pixels)}I", *pixels))


def test_colours_are_counted():
    assert picture([1, 2, 1]).colours() == 2
    assert picture([7] * 200_000).colours() == 1


def test_colours_without_end_are_not_counted_to_their_end():
    assert 65_536 < picture(range(300_000)).colours() < 300_000


def test_a_desktop_that_says_that_it_is_larger_than_any_gets_no_memory():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        told = b"RFB 003.008\n\x01\x02" + bytes(16) + bytes(4) + struct.pack("!HH", 8192, 8192) + bytes(16) + bytes(4)
        theirs.sendall(told)
        with pytest.raises(Exception, match=f"says {8192 * 8192} where"):
            take_picture(ours, "secret")
