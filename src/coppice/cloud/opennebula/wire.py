# SPDX-License-Identifier: Apache-2.0
"""What goes to ``oned`` and comes back: pyone over a transport of our own.

pyone's own transport has no time limit but one that it sets for the whole process, reads answers of any length, goes
through whatever proxy the environment names, and follows redirects with the password in the body. Answers are read by
a parser that takes no document type, so that no entity is ever expanded; pyone would hand them to another.
"""

from __future__ import annotations

import time
import xmlrpc.client
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import TreeBuilder
from xml.parsers import expat

from coppice.errors import CloudDriverError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

    from coppice.cloud.opennebula.failures import Failures
    from coppice.cloud.opennebula.options import FrontEndSettings

MAXIMUM_ANSWER_BYTES = 64 * 1024 * 1024
"""About 10,000 images with what Coppice writes on them."""
MAXIMUM_DEPTH = 64
_LEAST_VALUES = 3
"""Of an answer: whether it is one, the value or why not, and a code."""
_PIECE_BYTES = 64 * 1024


def parsed(text: str) -> Element:
    """Return the root of a document out of an answer.

    Raises:
        ValueError: It is no XML, has a document type or entities of its own, or is too deep.
    """
    return _Reader().read(text.encode("utf-8", "surrogatepass"))


class _Reader:
    """Builds a tree; refuses what a document type could bring."""

    def __init__(self) -> None:
        self._builder = TreeBuilder()
        self._depth = 0
        self._parser = parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._builder.data
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse

    def read(self, data: bytes) -> Element:
        try:
            self._parser.Parse(data, True)  # noqa: FBT003 - the library has it so
        except expat.ExpatError as problem:
            message = f"it is no XML: {problem}"
            raise ValueError(message) from problem
        return self._builder.close()

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAXIMUM_DEPTH:
            message = f"its elements are more than {MAXIMUM_DEPTH} deep"
            raise ValueError(message)
        self._builder.start(tag, attributes)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._builder.end(tag)

    def _refuse(self, *_: object) -> None:
        message = "it has a document type or entities of its own"
        raise ValueError(message)


class _Transport(xmlrpc.client.Transport):
    """Posts a call and returns what the answer says; what `xmlrpc.client.ServerProxy` wants of a transport."""

    def __init__(self, settings: FrontEndSettings, failures: Failures, context: ssl.SSLContext | None) -> None:
        super().__init__()
        import urllib3

        self._settings = settings
        self._failures = failures
        self._pool = urllib3.PoolManager(
            num_pools=2,
            maxsize=8,
            ssl_context=context,
            retries=False,
            timeout=urllib3.Timeout(connect=settings.connect_seconds, read=settings.call_seconds),
        )

    def request(self, host: Any, handler: str, request_body: Any, verbose: bool = False) -> Any:
        import urllib3

        deadline = time.monotonic() + self._settings.call_seconds
        try:
            response = self._pool.request(
                "POST",
                self._settings.endpoint,
                body=request_body,
                headers={"Content-Type": "text/xml", "User-Agent": "coppice", "Accept-Encoding": "identity"},
                preload_content=False,
                redirect=False,
            )
            try:
                data = self._body(response, deadline)
            except BaseException:
                # What is left of the answer is not waited for: a connection that is given back is read to its end.
                response.close()
                raise
            response.release_conn()
        except urllib3.exceptions.HTTPError as problem:
            raise self._failures.of_connection(problem) from problem
        return self._values(data)

    def _body(self, response: Any, deadline: float) -> bytes:
        if response.status != HTTPStatus.OK:
            raise self._failures.of_status(response.status)
        pieces: list[bytes] = []
        length = 0
        for piece in response.stream(_PIECE_BYTES, decode_content=False):
            pieces.append(piece)
            length += len(piece)
            if length > MAXIMUM_ANSWER_BYTES:
                raise self._failures.unreadable(f"it is longer than {MAXIMUM_ANSWER_BYTES} bytes")
            if time.monotonic() > deadline:
                raise self._failures.too_slow()
        return b"".join(pieces)

    def _values(self, data: bytes) -> Any:
        try:
            # The envelope itself, before xmlrpc's own reader: that one lets a document type pass.
            _Reader().read(data)
            values, _ = xmlrpc.client.loads(data)
        except xmlrpc.client.Fault as problem:
            raise self._failures.of_fault(problem.faultCode, problem.faultString) from problem
        except (ValueError, TypeError, LookupError, expat.ExpatError, xmlrpc.client.Error) as problem:
            raise self._failures.unreadable(str(problem)[:300]) from problem
        return values


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
