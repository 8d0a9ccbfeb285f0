# SPDX-License-Identifier: Apache-2.0
"""``sftp``: a file of an SSH server whose key is known (``sftp://user@host:port/path``)."""

from __future__ import annotations

import errno
import getpass
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from coppice.cache.origin.named import is_named_by_site
from coppice.cache.origin.protocol import Origin
from coppice.errors import (
    AddressRefusedError,
    CoppiceError,
    CredentialError,
    ToolMissingError,
    TransferCutError,
    TransferStalledError,
    UnreachableError,
)
from coppice.http.credential import read_pair
from coppice.http.location import show
from coppice.http.message import Validators
from coppice.http.ranges import Body

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from coppice.http import Client
    from coppice.http.access import Access
    from coppice.http.guard import Guard
    from coppice.http.ranges import Part

KNOWN_HOSTS = (Path("~/.ssh/known_hosts"), Path("/etc/ssh/ssh_known_hosts"))
_PORT = 22
_READ_BYTES = 32 * 1024
_READS_AT_ONCE = 64
_KNOWN_HOSTS_LIMIT_BYTES = 16 * 1024 * 1024


class SshOrigin(Origin):
    """A file of an SSH server.

    The server's key must be in OpenSSH's files of known hosts: those of the user that Coppice runs as, or of the
    machine. The name and password of an access that is named for it are shown; else that user's keys, and only to a
    server that the site's settings name among their mirrors: where only a list names it, nobody logs in.

    Args:
        uri: ``sftp://user@host:port/path``.
        client: For limits, the address rules and attempts.
        accesses: How servers are approached.
        known_hosts: Files of known hosts.

    Raises:
        AddressRefusedError: It is no such address.
    """

    def __init__(
        self, uri: str, client: Client, accesses: Sequence[Access], known_hosts: Sequence[Path] = KNOWN_HOSTS
    ) -> None:
        super().__init__(client, show(uri))
        try:
            parts = urlsplit(uri)
            self._port = parts.port or _PORT
        except ValueError as problem:
            raise AddressRefusedError(f"{self.shown} cannot be read: {problem}") from problem
        self._name = (parts.hostname or "").lower()
        self._path = unquote(parts.path)
        if not self._name or not self._path or parts.password is not None or parts.query or parts.fragment:
            raise AddressRefusedError(
                f"{self.shown} is no address of a file at an SSH server",
                resolution="Write sftp://user@host/path; a password never stands in an address.",
                context={"url": self.shown},
            )
        self._user = unquote(parts.username) if parts.username is not None else None
        self._accesses = accesses
        self._shows_own_keys = is_named_by_site(uri, client.settings)
        self._known_hosts = known_hosts
        self.host = f"{self._name}:{self._port}"
        self._paramiko = None
        self._connection: Any = None
        self._sftp: Any = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    @contextmanager
    def open(self, part: Part, deadline: float) -> Iterator[Body]:
        """Read it; a connection is kept for the next part."""
        with self._lock, self.client.dialer.guard(deadline) as guard, self._translated(guard):
            if self._sftp is None:
                self._connect(guard)
            elif self._socket is not None:
                guard.watch(self._socket)
            with self._sftp.open(self._path, "rb") as stream:
                state = stream.stat()
                guard.wait_ends(0)
                size = int(state.st_size or 0)
                validators = Validators(etag=f'"{size:x}-{int(state.st_mtime or 0):x}"')
                is_known = part.known is None or not part.known.contradicts(validators)
                start = part.start if is_known and part.start < size else 0
                end = size if part.end is None or start != part.start else min(part.end, size)
                if part.size_bytes not in {None, size}:
                    # What is said of another file shows that it is one.
                    start, end = 0, size
                yield Body(
                    status=200,
                    start=start,
                    end=end,
                    validators=validators,
                    takes_ranges=True,
                    pieces=self._pieces(stream, start, end, guard),
                    shown=self.shown,
                )

    def close(self) -> None:
        """End the connection."""
        connection, self._connection, self._sftp, self._socket = self._connection, None, None, None
        if connection is not None:
            connection.close()

    def _pieces(self, stream: Any, position: int, end: int, guard: Guard) -> Iterator[bytes]:
        """Yield the bytes; several requests are under way at a time, and all of them belong to what is read."""
        while position < end:
            last = min(end, position + _READ_BYTES * _READS_AT_ONCE)
            chunks = [(at, min(_READ_BYTES, last - at)) for at in range(position, last, _READ_BYTES)]
            found = bytearray()
            guard.wait_begins()
            for (_, wanted), piece in zip(chunks, stream.readv(chunks), strict=True):
                guard.wait_ends(len(piece))
                found += piece
                if len(piece) != wanted:
                    break
                guard.wait_begins()
            guard.wait_ends(0)
            if found:
                yield bytes(found)
            if len(found) != last - position:
                return
            position = last

    def _connect(self, guard: Guard) -> None:
        paramiko = _paramiko()
        settings = self.client.settings
        client = paramiko.SSHClient()
        self._load_known_hosts(client, paramiko)
        # An unknown key ends the connection: it is neither taken nor asked about.
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        user, password = self._named_login()
        if password is None and not self._shows_own_keys:
            raise CredentialError(
                f"nobody logs in at {self._name} because a list says so",
                resolution=f'Name the server in the settings: [transfer.mirrors] "sftp://{self._name}/" = '
                f'["sftp://{self._name}/"]. This user\'s keys are shown there then.',
                context={"url": self.shown, "host": self._name},
            )
        connection = self.client.dialer.connect(self._name, self._port)
        guard.watch(connection)
        guard.is_connected = True
        try:
            client.connect(
                self._name,
                port=self._port,
                sock=connection,
                username=self._user or user or _own_name(),
                password=password,
                look_for_keys=password is None,
                allow_agent=False,
                timeout=settings.connect_timeout_seconds,
                banner_timeout=settings.read_timeout_seconds,
                auth_timeout=settings.read_timeout_seconds,
                channel_timeout=settings.read_timeout_seconds,
            )
            sftp = client.open_sftp()
            sftp.get_channel().settimeout(settings.read_timeout_seconds)
        except BaseException:
            client.close()
            connection.close()
            raise
        self._connection, self._sftp, self._socket = client, sftp, connection

    def _named_login(self) -> tuple[str | None, str | None]:
        for access in self._accesses:
            with suppress(ValueError):
                parts = urlsplit(access.url)
                named = (parts.scheme, (parts.hostname or "").lower(), parts.port or _PORT)
                if access.credential is not None and named == ("sftp", self._name, self._port):
                    return read_pair(access.credential)
        return None, None

    def _load_known_hosts(self, client: Any, paramiko: Any) -> None:
        for each in self._known_hosts:
            try:
                path = each.expanduser()
            except RuntimeError:
                # Who has no home has no such file.
                continue
            try:
                with path.open("rb") as stream:
                    text = stream.read(_KNOWN_HOSTS_LIMIT_BYTES)
                # paramiko does not know marks: a revoked key would be taken where another line has it as good.
                if any(line.lstrip().startswith(b"@revoked") for line in text.splitlines()):
                    raise CredentialError(
                        f"the file of known hosts {path} revokes keys, which Coppice cannot obey",
                        resolution="Fetch from there by another way, or keep revoked keys in another file.",
                    )
                client.load_system_host_keys(str(path))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, paramiko.SSHException, paramiko.hostkeys.InvalidHostKey) as problem:
                raise CredentialError(f"the file of known hosts {path} cannot be used: {problem}") from problem

    @contextmanager
    def _translated(self, guard: Guard) -> Iterator[None]:
        paramiko = _paramiko()
        try:
            yield
        except CoppiceError:
            if guard.verdict is not None:
                self.close()
            raise
        except (OSError, EOFError, ValueError, paramiko.SSHException) as problem:
            error = self._error(problem, guard, paramiko)
            if not isinstance(problem, FileNotFoundError | PermissionError):
                self.close()
            raise error from problem

    def _error(self, problem: Exception, guard: Guard, paramiko: Any) -> CoppiceError:
        context = {"url": self.shown, "host": self._name}
        final = {**context, "final": True}
        if guard.verdict is not None or isinstance(problem, TimeoutError):
            return TransferStalledError(
                f"{self.shown} took too long, or came too slowly, and was given up",
                resolution="Run again later, or change transfer.minimum_rate_bytes_per_second or "
                "transfer.total_timeout_seconds.",
                context=context,
            )
        if isinstance(problem, paramiko.BadHostKeyException):
            return UnreachableError(
                f"{self._name} shows another key than the one that is known",
                resolution="Find out whether the server's key was changed on purpose; only then replace it.",
                context=final,
            )
        if isinstance(problem, paramiko.SSHException) and "known_hosts" in str(problem):
            return UnreachableError(
                f"the key of {self._name} port {self._port} is not known",
                details=str(problem),
                resolution="Get the key by a way that you trust, and add it to "
                f"{' or '.join(str(each) for each in self._known_hosts)}.",
                context=final,
            )
        if isinstance(problem, paramiko.AuthenticationException) or "authentication" in str(problem).lower():
            return UnreachableError(
                f"{self._name} does not let this user in",
                details=str(problem) or None,
                resolution="Check the user in the address, and that the server knows its key or password.",
                context=final,
            )
        if isinstance(problem, OSError) and problem.errno in {errno.ENOENT, errno.EACCES}:
            why = "is not there" if problem.errno == errno.ENOENT else "may not be read"
            return UnreachableError(f"{self.shown} {why}", resolution="Tell whoever publishes it.", context=final)
        return TransferCutError(
            f"the connection to {self._name} broke while {self.shown} was fetched",
            details=str(problem) or None,
            resolution="Run again; what was there before stays as it is.",
            context=context,
        )


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as problem:
        raise CredentialError(
            "the user that Coppice runs as has no name here",
            resolution="Write the user into the address: sftp://user@host/path.",
        ) from problem


def _paramiko() -> Any:
    try:
        import paramiko
    except ImportError as problem:
        raise ToolMissingError(
            "addresses that begin with sftp: need the Python package paramiko",
            resolution="Install Coppice with it: pip install 'coppice[sftp]'",
        ) from problem
    return paramiko
