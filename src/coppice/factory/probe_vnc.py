# SPDX-License-Identifier: Apache-2.0
"""A desktop, seen as a VNC client sees it: the handshake of RFB (RFC 6143), a password, and one whole picture.

What comes from a guest is hostile: sizes are bounded, times are limited, and nothing is drawn.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION = b"RFB 003.008\n"
_BY_PASSWORD = 2
_RAW = 0
_LONGEST_SIDE = 8192
_MOST_PIXELS = 4096 * 4096
_MOST_COLOURS = 65_536
_LONGEST_TEXT = 4096
_MOST_RECTANGLES = 10_000
_CONNECTION_SECONDS = 60.0
_PAUSE_SECONDS = 2.0
_PIXEL_BYTES = 4
# 32 bits a pixel, 24 of them used, little-endian, true colour, each colour 8 bits.
_PIXEL_FORMAT = struct.pack("!BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a desktop shows.

    Attributes:
        name: The desktop's, by its own words.
        width: In pixels.
        height: In pixels.
        pixels: Four bytes each, blue first, row after row.
    """

    name: str
    width: int
    height: int
    pixels: bytes

    def colours(self) -> int:
        """Return how many different colours there are; who has many is counted no further."""
        found: set[int] = set()
        pixels = memoryview(self.pixels).cast("I")
        for start in range(0, len(pixels), _MOST_COLOURS):
            found.update(pixels[start : start + _MOST_COLOURS])
            if len(found) > _MOST_COLOURS:
                break
        return len(found)


class _NotSpokenError(Exception):
    """The other side speaks no RFB, or another than is understood here."""


def see_desktop(port: int, password: Callable[[], str | None], *, seconds: float) -> tuple[Picture | None, str | None]:
    """Look at a desktop behind a port of the host's loopback until it shows something, at most ``seconds``.

    Args:
        port: Where.
        password: Returns what it asks for; None: nobody has told yet.
        seconds: For all tries together.

    Returns:
        What it shows, and what is wrong; a picture of one colour is nobody's desktop.
    """
    deadline = time.monotonic() + seconds
    while True:
        picture, wrong = _try(port, password())
        if wrong is None or time.monotonic() >= deadline:
            return picture, wrong
        time.sleep(_PAUSE_SECONDS)


def _try(port: int, password: str | None) -> tuple[Picture | None, str | None]:
    if password is None:
        return None, "its console does not tell the password of its desktop"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_CONNECTION_SECONDS) as connection:
            picture = take_picture(connection, password)
    except _NotSpokenError as problem:
        return None, f"its desktop is not to be seen: {problem}"
    except (OSError, struct.error) as problem:
        return None, f"its desktop is not to be seen: {problem or 'it does not answer'}"
    return picture, None if picture.colours() > 1 else "its desktop shows nothing"


def take_picture(connection: socket.socket, password: str) -> Picture:
    """Log in over ``connection`` and return what is to be seen.

    Raises:
        OSError: The connection broke, or stood still.
    """
    _introduce(connection, password)
    connection.sendall(b"\x01")  # others may look too
    width, height = struct.unpack("!HH", _exactly(connection, 4))
    _exactly(connection, 16)
    (length,) = struct.unpack("!I", _exactly(connection, 4))
    name = _exactly(connection, _bounded(length, _LONGEST_TEXT)).decode("utf-8", errors="replace")
    _bounded(width, _LONGEST_SIDE), _bounded(height, _LONGEST_SIDE), _bounded(width * height, _MOST_PIXELS)
    connection.sendall(b"\x00\x00\x00\x00" + _PIXEL_FORMAT + struct.pack("!BxHi", 2, 1, _RAW))
    connection.sendall(struct.pack("!BBHHHH", 3, 0, 0, 0, width, height))
    return Picture(name=name, width=width, height=height, pixels=_read_picture(connection, width, height))


def answer_challenge(challenge: bytes, password: str) -> bytes:
    """Return VNC's proof that one knows ``password``: the challenge, enciphered by DES with it as the key."""
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    # VNC reads each byte of the key from its other end. Three times the same key is DES.
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode("latin-1", "replace")[:8].ljust(8, b"\0"))
    cipher = Cipher(TripleDES(key * 3), modes.ECB()).encryptor()  # noqa: S305 - the protocol has no other
    return cipher.update(challenge) + cipher.finalize()


def _introduce(connection: socket.socket, password: str) -> None:
    if not _exactly(connection, 12).startswith(b"RFB 003.00"):
        raise _NotSpokenError("what answers is no VNC server")
    connection.sendall(_VERSION)
    offered = _exactly(connection, _exactly(connection, 1)[0])
    if not offered:
        raise _NotSpokenError(f"it refuses: {_reason(connection)}")
    if 1 in offered:
        raise _NotSpokenError("it lets anybody in without a password")
    if _BY_PASSWORD not in offered:
        raise _NotSpokenError(f"it does not ask for a password; it offers {', '.join(map(str, offered))}")
    connection.sendall(bytes([_BY_PASSWORD]))
    connection.sendall(answer_challenge(_exactly(connection, 16), password))
    (result,) = struct.unpack("!I", _exactly(connection, 4))
    if result != 0:
        raise _NotSpokenError(f"it refuses the password on its console: {_reason(connection)}")


def _read_picture(connection: socket.socket, width: int, height: int) -> bytes:
    pixels = bytearray(width * height * _PIXEL_BYTES)
    missing = width * height
    while missing > 0:
        kind = _exactly(connection, 1)[0]
        if kind == 2:  # noqa: PLR2004 - a bell
            continue
        if kind == 3:  # noqa: PLR2004 - what somebody cut out there
            _exactly(connection, 3)
            (length,) = struct.unpack("!I", _exactly(connection, 4))
            _exactly(connection, _bounded(length, _LONGEST_TEXT))
            continue
        if kind != 0:
            raise _NotSpokenError("it says what was not asked for")
        _, rectangles = struct.unpack("!BH", _exactly(connection, 3))
        for _ in range(_bounded(rectangles, _MOST_RECTANGLES)):
            missing -= _read_rectangle(connection, pixels, width, height)
    return bytes(pixels)


def _read_rectangle(connection: socket.socket, pixels: bytearray, width: int, height: int) -> int:
    left, top, across, down, encoding = struct.unpack("!HHHHi", _exactly(connection, 12))
    if encoding != _RAW or left + across > width or top + down > height or not across * down:
        raise _NotSpokenError("it shows what was not asked for")
    for row in range(top, top + down):
        start = (row * width + left) * _PIXEL_BYTES
        pixels[start : start + across * _PIXEL_BYTES] = _exactly(connection, across * _PIXEL_BYTES)
    return int(across * down)


def _reason(connection: socket.socket) -> str:
    (length,) = struct.unpack("!I", _exactly(connection, 4))
    text = _exactly(connection, _bounded(length, _LONGEST_TEXT)).decode("utf-8", errors="replace")
    return "".join(character for character in text if character.isprintable())


def _bounded(number: int, most: int) -> int:
    if number > most:
        raise _NotSpokenError(f"it says {number} where {most} is the most")
    return number


def _exactly(connection: socket.socket, length: int) -> bytes:
    got = bytearray()
    while len(got) < length:
        part = connection.recv(min(length - len(got), 1 << 20))
        if not part:
            raise _NotSpokenError("it broke off")
        got += part
    return bytes(got)
