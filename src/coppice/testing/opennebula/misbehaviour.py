# SPDX-License-Identifier: Apache-2.0
"""How a fault looks on the wire."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from coppice.testing.opennebula import wire
from coppice.testing.opennebula.faults import ENDLESS_BYTES, Act, When

if TYPE_CHECKING:
    import threading
    from http.server import BaseHTTPRequestHandler

    from coppice.testing.opennebula.faults import Fault

_PIECE_BYTES = 256 * 1024
_POOL = re.compile(r"(<value><string>)(.*)(</string></value>)", re.DOTALL)
_POOL_OBJECTS = ("IMAGE", "VMTEMPLATE", "VM", "DATASTORE")


class Misbehaviour:
    """Does what a fault says to one call.

    Args:
        fault: Which; None: nothing goes wrong.
        handler: Of the call.
        stopping: Ends all waiting.
    """

    def __init__(self, fault: Fault | None, handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        self._fault = fault
        self._handler = handler
        self._stopping = stopping

    def before(self, method: str) -> bool:
        """Go wrong before the call is done; return whether it has been answered so."""
        fault = self._fault
        if fault is None or fault.when is When.AFTER or fault.act in {Act.HALF, Act.CUT_ANSWER}:
            return False
        if fault.act is Act.DELAY:
            self._stopping.wait(fault.seconds)
            return False
        self._act(fault, wire.refusal(method, fault.code, fault.text, -1))
        return True

    def after(self, answer: bytes) -> bool:
        """Go wrong when the call is done; return whether it has been answered so."""
        fault = self._fault
        if fault is None or (fault.when is When.BEFORE and fault.act not in {Act.HALF, Act.CUT_ANSWER}):
            return False
        if fault.act is Act.HALF:
            self._send(_half(answer))
        elif fault.act is Act.CUT_ANSWER:
            self._send(answer[: len(answer) // 2], announced=len(answer))
        elif fault.act is Act.DELAY:
            self._stopping.wait(fault.seconds)
            return False
        else:
            self._act(fault, answer)
        return True

    def _act(self, fault: Fault, refusal: bytes) -> None:
        match fault.act:
            case Act.STATUS:
                self._send(b"<html>An error page</html>", status=fault.code)
            case Act.CUT:
                self._leave()
            case Act.STALL:
                self._stopping.wait(fault.seconds)
                self._leave()
            case Act.HUGE:
                self._endless()
            case Act.BOMB:
                self._send(_bomb())
            case Act.OUTSIDE:
                self._send(_outside())
            case Act.GARBAGE:
                self._send(b"\x00\xff this is not XML <<<")
            case Act.WRONG_SHAPE:
                self._send(wire.success("<IMAGE_POOL><IMAGE><ID>many</ID></IMAGE></IMAGE_POOL>"))
            case _:
                self._send(refusal)

    def _send(self, content: bytes, *, status: int = 200, announced: int | None = None) -> None:
        handler = self._handler
        with suppress(OSError):
            handler.send_response(status)
            handler.send_header("Content-Type", "text/xml; charset=utf-8")
            handler.send_header("Content-Length", str(len(content) if announced is None else announced))
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.wfile.write(content)

    def _leave(self) -> None:
        with suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)

    def _endless(self) -> None:
        start, end = (
            b"<methodResponse><params><param><value><string>",
            b"</string></value></param></params></methodResponse>",
        )
        handler = self._handler
        with suppress(OSError):
            handler.send_response(200)
            handler.send_header("Content-Type", "text/xml; charset=utf-8")
            handler.send_header("Content-Length", str(len(start) + ENDLESS_BYTES + len(end)))
            handler.end_headers()
            handler.wfile.write(start)
            left = ENDLESS_BYTES
            while left and not self._stopping.is_set():
                piece = b"A" * min(left, _PIECE_BYTES)
                handler.wfile.write(piece)
                left -= len(piece)
            handler.wfile.write(end)


def _half(answer: bytes) -> bytes:
    """Leave out the second half of a pool's objects, well-formed: what a broken page looks like."""
    text = answer.decode()
    for tag in _POOL_OBJECTS:
        opening = f"&lt;{tag}&gt;"
        places = [match.start() for match in re.finditer(re.escape(opening), text)]
        if places:
            cut = places[len(places) // 2]
            end = text.rfind(f"&lt;/{tag}&gt;") + len(f"&lt;/{tag}&gt;")
            return (text[:cut] + text[end:]).encode()
    return answer


def _bomb() -> bytes:
    entities = "".join(f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' for level in range(1, 10))
    return (
        f'<?xml version="1.0"?><!DOCTYPE methodResponse [<!ENTITY l0 "lol">{entities}]>'
        "<methodResponse><params><param><value><array><data><value><boolean>1</boolean></value>"
        "<value><string>&l9;</string></value><value><i4>0</i4></value></data></array></value></param></params>"
        "</methodResponse>"
    ).encode()


def _outside() -> bytes:
    return (
        b'<?xml version="1.0"?><!DOCTYPE methodResponse [<!ENTITY file SYSTEM "file:///etc/passwd">]>'
        b"<methodResponse><params><param><value><array><data><value><boolean>1</boolean></value>"
        b"<value><string>&file;</string></value><value><i4>0</i4></value></data></array></value></param></params>"
        b"</methodResponse>"
    )
