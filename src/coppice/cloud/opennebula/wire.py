# SPDX-License-Identifier: Apache-2.0
"""What goes to ``oned`` and comes back: pyone over a transport of our own.

pyone's own transport has no time limit but one that it sets for the whole process, reads answers of any length, goes
through whatever proxy the environment names, and follows redirects with the password in the body. Answers with a
document type are refused, so that no entity is ever expanded; pyone would hand them to a parser that does.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError, XMLParser

from coppice.errors import CloudDriverError

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

    from coppice.cloud.opennebula.failures import Failures
    from coppice.cloud.opennebula.options import FrontEndSettings

MAXIMUM_ANSWER_BYTES = 64 * 1024 * 1024
"""About 10,000 images with what Coppice writes on them."""
MAXIMUM_MARKS = 4_000_000
"""Beginnings and ends of elements, and equals signs: what an answer grows to in memory is bounded by them."""
_PLAIN = re.compile(rb"\s*(?:<\?xml[^<>]{0,200}\?>)?\s*<[A-Za-z_]")
_BOOLEANS = {"0": False, "1": True}
_LEAST_VALUES = 3
"""Of an answer: whether it is one, the value or why not, and a code."""
_PIECE_BYTES = 64 * 1024
_HEADERS = {"Content-Type": "text/xml", "User-Agent": "coppice", "Accept-Encoding": "identity", "Connection": "close"}


def parsed(text: str) -> Element:
    """Return the root of a document out of an answer.

    Raises:
        ValueError: It is no XML, has a document type (and so entities of its own), or too many elements.
    """
    return _tree(text.encode("utf-8", "surrogatepass"))


def _tree(data: bytes) -> Element:
    # A document type stands before the root, or nowhere: what begins with the root has none.
    if _PLAIN.match(data) is None:
        message = "it is no plain XML, or has a document type before it"
        raise ValueError(message)
    if max(data.count(b"<"), data.count(b"=")) > MAXIMUM_MARKS:
        message = "it has too many elements or attributes"
        raise ValueError(message)
    parser = XMLParser(encoding="utf-8")  # noqa: S314 - see above
    try:
        parser.feed(data)
        return parser.close()
    except ParseError as problem:
        message = f"it is no XML: {problem}"
        raise ValueError(message) from problem


def _python(value: Element) -> object:
    """Return what a ``value`` element of XML-RPC stands for; of the types, those that ``oned`` uses."""
    if len(value) == 0:
        return value.text or ""
    (kind,) = value
    text = kind.text or ""
    match kind.tag:
        case "string":
            return text
        case "i4" | "int" | "i8":
            return int(text)
        case "boolean":
            return _BOOLEANS[text.strip()]
        case "array":
            return [_python(each) for each in kind.findall("data/value")]
        case "struct":
            return {each.findtext("name"): _python(_one(each, "value")) for each in kind.findall("member")}
        case _:
            message = f"it has a value of type {kind.tag[:40]!r}"
            raise ValueError(message)


def _one(parent: Element, path: str) -> Element:
    found = parent.find(path)
    if found is None:
        message = f"it has no {path}"
        raise ValueError(message)
    return found


class _Transport:
    """Posts a call and returns what the answer says; what `xmlrpc.client.ServerProxy` wants of a transport.

    Each call has a connection of its own, which is shut down when its time is up, whatever is waited for.
    """

    def __init__(self, settings: FrontEndSettings, failures: Failures, context: ssl.SSLContext | None) -> None:
        self._settings = settings
        self._failures = failures
        self._context = context
        parts = urlsplit(settings.endpoint)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path or "/RPC2"

    def request(self, _host: object, _handler: str, body: bytes, *, verbose: object = False) -> Any:
        connection = self._new_connection()
        expired = threading.Event()
        watch = threading.Timer(self._settings.call_seconds, _give_up, (connection, expired))
        watch.daemon = True
        try:
            self._connect(connection)
            watch.start()
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            connection.sock.settimeout(self._settings.call_seconds)
            connection.request("POST", self._path, body=body, headers=_HEADERS)
            data = self._body(connection.getresponse())
            if expired.is_set():
                # An answer that is shut down in its head ends as if it had no body.
                raise self._failures.too_slow()
        except (OSError, http.client.HTTPException) as problem:
            if expired.is_set():
                raise self._failures.too_slow() from problem
            raise self._failures.of_connection(problem) from problem
        finally:
            watch.cancel()
            connection.close()
        return self._values(data)

    def _new_connection(self) -> http.client.HTTPConnection:
        default = http.client.HTTP_PORT if self._context is None else http.client.HTTPS_PORT
        port = self._port or default
        return http.client.HTTPConnection(self._host, port, timeout=self._settings.connect_seconds)

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        """Connect, and leave what TLS has to say to when the call is watched: it may come byte by byte, too."""
        connection.connect()
        if self._context is not None:
            connection.sock = self._context.wrap_socket(
                connection.sock, server_hostname=self._host, do_handshake_on_connect=False
            )

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        if response.status != HTTPStatus.OK:
            raise self._failures.of_status(response.status)
        pieces: list[bytes] = []
        length = 0
        while piece := response.read(_PIECE_BYTES):
            pieces.append(piece)
            length += len(piece)
            if length > MAXIMUM_ANSWER_BYTES:
                raise self._failures.unreadable(f"it is longer than {MAXIMUM_ANSWER_BYTES} bytes")
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(pieces)

    def _values(self, data: bytes) -> list[object]:
        try:
            root = _tree(data)
            if root.tag != "methodResponse":
                raise self._failures.unreadable("it is no answer of XML-RPC")
            fault = root.find("fault/value")
            if fault is None:
                return [_python(_one(root, "params/param/value"))]
            said = _python(fault)
        except (ValueError, LookupError, RecursionError) as problem:
            raise self._failures.unreadable(str(problem)[:300]) from problem
        said = said if isinstance(said, dict) else {}
        raise self._failures.of_fault(said.get("faultCode"), str(said.get("faultString")))


def _give_up(connection: http.client.HTTPConnection, expired: threading.Event) -> None:
    expired.set()
    held = connection.sock
    if held is not None:
        with contextlib.suppress(OSError):
            # TLS or not: nothing is said to the other end any more, which does not listen.
            socket.socket.shutdown(held, socket.SHUT_RDWR)


def connect(settings: FrontEndSettings, failures: Failures) -> Any:
    """Return pyone's server of the front-end; nothing is asked yet.

    Its calls return a number, a text, or the root `Element` of a document, and raise `CloudError` alone.

    Raises:
        CloudDriverError: pyone is not installed.
        CredentialError: The session's secret cannot be read.
        TrustAnchorError: The authorities that are to vouch for the front-end cannot be used.
    """
    try:
        import pyone
    except ImportError as problem:
        raise CloudDriverError(
            f"cloud {failures.cloud} needs the Python package pyone: {problem}",
            resolution="Install it: pip install 'coppice[opennebula]'",
        ) from problem
    context = None
    if settings.endpoint.startswith("https:"):
        from coppice.http.tls import Contexts

        context = Contexts().get(settings.authorities)
    # The factory may choose gRPC by a variable of the environment; the class of the XML-RPC server does not.
    kind = pyone.server_xrpc.OneServerXRPC if hasattr(pyone, "server_xrpc") else pyone.OneServer
    server = _adapted(kind, failures)(settings.endpoint, settings.session())
    vars(server)["_ServerProxy__transport"] = _Transport(settings, failures, context)
    return server


def _adapted(kind: Any, failures: Failures) -> Callable[..., Any]:
    class Server(kind):  # type: ignore[misc]  # pyone has no types
        """pyone's server, with answers read and refusals told by Coppice."""

        def _do_request(self, method: str, params: Any) -> Any:
            raw = super()._do_request(method, params)
            if not isinstance(raw, list) or len(raw) < _LEAST_VALUES or not isinstance(raw[0], bool):
                raise failures.unreadable("it is not a list of success, value and code")
            succeeded, value, code = raw[:_LEAST_VALUES]
            if not succeeded:
                raise failures.of_refusal(method, code if isinstance(code, int) else 0, str(value))
            if isinstance(value, str) and value.startswith("<"):
                try:
                    value = parsed(value)
                except ValueError as problem:
                    raise failures.unreadable(str(problem)[:300]) from problem
            elif value == "":
                raise failures.unreadable("it is empty")
            return [succeeded, value, code]

    return Server


def require_root(element: object, tag: str, failures: Failures) -> Element:
    """Return ``element`` when it is one with that tag.

    Raises:
        CloudAnswerError: It is something else.
    """
    if getattr(element, "tag", None) != tag:
        raise failures.unreadable(f"{tag} was expected")
    return element  # type: ignore[return-value]
