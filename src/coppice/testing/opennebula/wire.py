# SPDX-License-Identifier: Apache-2.0
"""XML-RPC as ``oned`` speaks it: its requests read, its answers written as the recordings have them."""

from __future__ import annotations

import xmlrpc.client
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.parsers.expat import ExpatError

from coppice.testing.opennebula.refusal import ProtocolFault

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_METHOD, NO_TYPE, NOT_XML_RPC = -506, -501, -503


class Long(int):
    """An integer that is written with 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request.

    Attributes:
        method: Its name, with ``one.``.
        parameters: With the session as the first.
    """

    method: str
    parameters: tuple[object, ...]


def read_call(body: bytes) -> Call:
    """Return what is asked.

    Raises:
        ProtocolFault: It is no XML-RPC.
    """
    try:
        parameters, method = xmlrpc.client.loads(body)
    except (ExpatError, xmlrpc.client.Error, ValueError, TypeError) as problem:
        raise ProtocolFault(NOT_XML_RPC, f"Call XML not a proper XML-RPC call. {problem}") from problem
    if not isinstance(method, str):
        raise ProtocolFault(NOT_XML_RPC, "Call XML not a proper XML-RPC call.")
    return Call(method=method, parameters=tuple(parameters))


def success(value: object) -> bytes:
    """Return the answer to a call that was done."""
    return _response([True, value, 0])


def refusal(method: str, code: int, text: str, object_id: int) -> bytes:
    """Return the answer to a call that was refused."""
    return _response([False, f"[{method}] {text}", code, object_id, Long(-1)])


def fault(code: int, text: str) -> bytes:
    """Return the answer to what is no call."""
    members = (
        f"<member><name>faultCode</name>\r\n<value><i4>{code}</i4></value></member>\r\n"
        f"<member><name>faultString</name>\r\n<value><string>{_escaped(text)}</string></value></member>\r\n"
    )
    return _document(f"<fault>\r\n<value><struct>\r\n{members}</struct></value>\r\n</fault>\r\n")


def _response(values: Sequence[object]) -> bytes:
    lines = "".join(f"<value>{_typed(value)}</value>\r\n" for value in values)
    return _document(
        f"<params>\r\n<param><value><array><data>\r\n{lines}</data></array></value></param>\r\n</params>\r\n"
    )


def _document(content: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\r\n<methodResponse>\r\n{content}</methodResponse>\r\n'.encode()


def _typed(value: object) -> str:
    if isinstance(value, bool):
        return f"<boolean>{int(value)}</boolean>"
    if isinstance(value, Long):
        return f"<i8>{int(value)}</i8>"
    if isinstance(value, int):
        return f"<i4>{value}</i4>"
    return f"<string>{_escaped(str(value))}</string>"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#x0d;")
