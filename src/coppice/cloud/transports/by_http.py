# SPDX-License-Identifier: Apache-2.0
"""The transport ``http``: the front-end fetches each image from this process, at an address that nobody else knows.

One server runs for all offers of a transport, and only while there are any. OpenNebula's drivers check no certificate
and put an interrupted download together wrongly: what proves the bytes is the checksum, which goes with each offer.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coppice.cloud.transports import folder
from coppice.cloud.transports.content import opened, speakable
from coppice.cloud.transports.pull_server import PullServer
from coppice.cloud.transports.transport import Offered
from coppice.errors import CloudError, SettingsError
from coppice.http.credential import check_private

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from coppice.cloud.transports.pull_server import Network
    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Monitor
    from coppice.settings.driver_options import Options

_LISTEN = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")
_URL = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[A-Za-z0-9._~-]+)*/?")
_PORT_LIMIT = 65535
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - it is what must not be told to a front-end


class HttpTransport:
    """Serves images.

    Args:
        host: Address to listen at.
        port: 0: any free one.
        url: How the front-end reaches it; None: by the address and port that it listens at.
        only_from: From where it may be asked; empty: from everywhere.
        tls: For HTTPS.
    """

    name = "http"

    def __init__(
        self,
        host: str,
        port: int,
        *,
        url: str | None = None,
        only_from: Sequence[Network] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._url = url.rstrip("/") if url is not None else None
        self._only_from = tuple(only_from)
        self._tls = tls
        self._lock = threading.Lock()
        self._offers = 0
        self._server: PullServer | None = None

    @contextmanager
    def offer(self, converted: ConvertedImage, monitor: Monitor) -> Iterator[Offered]:
        """Serve the image as long as the context is open.

        Raises:
            ChecksumMismatchError: The file is not the one that was converted.
            CloudError: Nothing can listen at the address.
            StorageError: The disk failed.
        """
        with opened(converted) as content:
            content.check(monitor)
            with self._running() as server, server.offered(content, folder.disk_name(converted)) as path:
                yield Offered(
                    path_or_url=self._base(server.port) + path,
                    checksums=content.checksums,
                    size_bytes=content.size_bytes,
                )

    def sweep(self) -> tuple[str, ...]:
        """Return nothing: a process that is dead serves nothing."""
        return ()

    def _base(self, port: int) -> str:
        if self._url is not None:
            return self._url
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{port}"

    @contextmanager
    def _running(self) -> Iterator[PullServer]:
        with self._lock:
            if self._server is None:
                self._server = self._started()
            self._offers += 1
            server = self._server
        try:
            yield server
        finally:
            with self._lock:
                self._offers -= 1
                ending = self._server if self._offers == 0 else None
                if ending is not None:
                    self._server = None
                    ending.__exit__()

    def _started(self) -> PullServer:
        try:
            return PullServer(self._host, self._port, only_from=self._only_from, tls=self._tls).__enter__()
        except OSError as problem:
            taken = problem.errno == errno.EADDRINUSE
            raise CloudError(
                f"nothing can be served at {self._host} port {self._port}: {problem.strerror or problem}",
                resolution="Another run serves there: give each cloud, and each site on this machine, its own port."
                if taken
                else "Give `listen` an address of this machine and a port that this user may listen at.",
            ) from problem


def open_http(options: Options) -> HttpTransport:
    """Return the transport that the options describe.

    Raises:
        CredentialError: The key may be read by others.
        SettingsError: One is missing or wrong.
    """
    host, port = _listen(options.text("listen", "127.0.0.1:0"))
    url = options.optional_text("url")
    if url is not None and _URL.fullmatch(url) is None:
        raise SettingsError("the option `url` must be an address like http://mirror.example.org:8080")
    if url is None and host in _EVERYWHERE:
        raise SettingsError(
            "the option `url` is missing: `listen` does not say by which address the front-end reaches this machine"
        )
    return HttpTransport(
        host,
        port,
        url=None if url is None else speakable(url, "url"),
        only_from=_networks(options.optional_text("only_from")),
        tls=_tls(options.optional_path("certificate"), options.optional_path("key")),
    )


def _listen(text: str) -> tuple[str, int]:
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > _PORT_LIMIT:
        raise SettingsError("the option `listen` must be an address and a port: 192.0.2.1:8080")
    return match["host"].strip("[]"), int(match["port"])


def _networks(text: str | None) -> tuple[Network, ...]:
    found: list[Network] = []
    for word in (text or "").replace(",", " ").split():
        try:
            found.append(ipaddress.ip_network(word, strict=False))
        except ValueError as problem:
            raise SettingsError(f"the option `only_from`: {word!r} is no address or network") from problem
    return tuple(found)


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise SettingsError("give both `certificate` and `key`, or neither")
    check_private(key, "the private key of the pull server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty passphrase, so that an encrypted key is an error and not a question at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as problem:
        raise SettingsError(f"the certificate {certificate} and its key cannot be used: {problem}") from problem
    return context
