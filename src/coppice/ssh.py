# SPDX-License-Identifier: Apache-2.0
"""`Session`: an SFTP session with a server whose key is known, and its errors in Coppice's words.

What is asked for in which case is the caller's: a publisher's refusal is another error than a cloud's.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice import atomic
from coppice.errors import (
    CoppiceError,
    CredentialError,
    NoSpaceError,
    SettingsError,
    ToolMissingError,
    TransferCutError,
    TransferStalledError,
    UnreachableError,
)
from coppice.http.credential import check_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.settings.driver_options import Options, Secret

_SSH_PORT = 22
_KNOWN_HOSTS_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to get into an SSH server.

    Attributes:
        host: Name or address.
        port: Of the server.
        user: Name at the server.
        known_hosts: OpenSSH's file of known keys; the server's must be in it.
        key_file: Private key; None: a password.
        passphrase: Of the private key.
        password: When there is no key.
        timeout_seconds: To connect, and without an answer.
    """

    host: str
    port: int
    user: str
    known_hosts: Path
    key_file: Path | None
    passphrase: Secret | None
    password: Secret | None
    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How a session's errors are said.

    Attributes:
        refused: What it is when the server refuses.
        again: What to do when the connection failed: ``Publish again``; without a full stop.
        whole: What holds whatever failed: ``what is published stays as it is``; without a full stop.
        user: What the known hosts' file is for: ``this publisher``.
    """

    refused: type[CoppiceError]
    again: str
    whole: str
    user: str


class Session:
    """Connects when it is first needed. One thread at a time may use it.

    Args:
        login: How to get in.
        label: Names the place in errors.
        words: How errors are said.
    """

    def __init__(self, login: Login, label: str, words: Words) -> None:
        self._login = login
        self._label = label
        self._words = words
        self._client: Any = None
        self._sftp: Any = None

    @contextmanager
    def asked(self, doing: str) -> Iterator[Any]:
        """Yield paramiko's SFTP client; what fails is an error of Coppice, except that a file is missing.

        Raises:
            FileNotFoundError: The file that was asked for is not there.
            NoSpaceError: The server's disk or a quota is full.
            CoppiceError: The server refused: of the kind that the words say.
            TransferError: The connection failed.
        """
        paramiko = _paramiko()
        if self._sftp is None:
            self._connect(paramiko)
        try:
            yield self._sftp
        except (CoppiceError, FileNotFoundError):
            raise
        except TimeoutError as problem:
            self.close()
            raise TransferStalledError(
                f"{self._label} was silent for too long while {doing}", resolution=f"{self._words.again} later."
            ) from problem
        except (EOFError, ConnectionError, paramiko.SSHException) as problem:
            self.close()
            raise TransferCutError(
                f"the connection to {self._label} broke while {doing}",
                details=str(problem) or None,
                resolution=f"{self._words.again}; {self._words.whole}.",
            ) from problem
        except OSError as problem:
            raise self._refused(doing, problem) from problem

    def close(self) -> None:
        """End the connection."""
        client, self._client, self._sftp = self._client, None, None
        if client is not None:
            client.close()

    def _refused(self, doing: str, problem: OSError) -> CoppiceError:
        if problem.errno in {errno.ENOSPC, errno.EDQUOT}:
            return NoSpaceError(f"no space left at {self._label} while {doing}", resolution="Free space there.")
        if problem.errno == errno.EACCES:
            return self._words.refused(
                f"{self._label} does not allow it: {doing}",
                resolution=f"Give the user {self._login.user} the right to write there.",
            )
        # SFTP has one code for all else, a full disk included (draft-ietf-secsh-filexfer-02, 7).
        return self._words.refused(
            f"{self._label} failed while {doing}",
            details=str(problem) or None,
            resolution=f"{_sentence(self._words.whole)} A full disk at the server is the most common cause.",
        )

    def _connect(self, paramiko: Any) -> None:
        login = self._login
        client = paramiko.SSHClient()
        self._load_known_hosts(client, paramiko)
        # An unknown key ends the connection: it is neither taken nor asked about.
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            client.connect(
                login.host,
                port=login.port,
                username=login.user,
                pkey=self._key(paramiko),
                password=login.password.read() if login.key_file is None and login.password is not None else None,
                look_for_keys=False,
                allow_agent=False,
                timeout=login.timeout_seconds,
                banner_timeout=login.timeout_seconds,
                auth_timeout=login.timeout_seconds,
                channel_timeout=login.timeout_seconds,
            )
            sftp = client.open_sftp()
            sftp.get_channel().settimeout(login.timeout_seconds)
        except (CoppiceError, OSError, EOFError, paramiko.SSHException) as problem:
            client.close()
            raise self._no_connection(problem, paramiko) from problem
        self._client, self._sftp = client, sftp

    def _no_connection(self, problem: Exception, paramiko: Any) -> CoppiceError:
        if isinstance(problem, CoppiceError):
            return problem
        if isinstance(problem, paramiko.BadHostKeyException):
            return self._words.refused(
                f"{self._login.host} shows another key than {self._login.known_hosts} has for it",
                resolution="Nothing was sent. Find out whether the server's key was changed on purpose; only then "
                "replace it in the file.",
            )
        if isinstance(problem, paramiko.AuthenticationException):
            return self._words.refused(
                f"{self._label} does not let this user in",
                details=str(problem) or None,
                resolution="Check the user, and that the server knows the key or the password.",
            )
        if isinstance(problem, paramiko.SSHException) and "known_hosts" in str(problem):
            return self._words.refused(
                f"the key of {self._login.host} port {self._login.port} is not in {self._login.known_hosts}",
                details=str(problem),
                resolution="Get the key by a way that you trust, and add it to that file; nothing was sent.",
            )
        return UnreachableError(
            f"no SSH session with {self._label}",
            details=str(problem) or None,
            resolution="Check that the server runs, offers SFTP, and that this machine may connect to it.",
        )

    def _load_known_hosts(self, client: Any, paramiko: Any) -> None:
        path = self._login.known_hosts
        try:
            with path.open("rb") as stream:
                text = stream.read(_KNOWN_HOSTS_LIMIT_BYTES)
            # paramiko does not know marks: a revoked key would be taken where another line has it as good.
            revokes = any(line.lstrip().startswith(b"@revoked") for line in text.splitlines())
            if not revokes:
                client.load_host_keys(str(path))
        except (OSError, ValueError, paramiko.SSHException, paramiko.hostkeys.InvalidHostKey) as problem:
            raise SettingsError(
                f"the file of known hosts {path} cannot be used: {problem}",
                resolution="Name a file as OpenSSH writes it.",
            ) from problem
        if revokes:
            raise SettingsError(
                f"the file of known hosts {path} revokes keys, which Coppice cannot obey",
                resolution=f"Name a file of its own for {self._words.user}, with the server's key alone.",
            )

    def _key(self, paramiko: Any) -> Any:
        login = self._login
        if login.key_file is None:
            return None
        check_private(login.key_file, "the private key for SSH")
        passphrase = login.passphrase.read() if login.passphrase is not None else None
        reasons: list[str] = []
        for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
            try:
                with atomic.storage_errors("reading", login.key_file):
                    return kind.from_private_key_file(str(login.key_file), password=passphrase)
            except (paramiko.SSHException, ValueError, TypeError, IndexError) as problem:
                # The kind alone: an error of decryption may quote what it was given.
                reasons.append(type(problem).__name__)
        raise CredentialError(
            f"the private key {login.key_file} cannot be used",
            details=f"as Ed25519, ECDSA and RSA key: {', '.join(reasons)}",
            resolution="It must be such a key as OpenSSH writes it; name its passphrase if it has one.",
        )


def login_of(options: Options) -> Login:
    """Return how to get in, as options say it: ``host``, ``user``, ``known_hosts`` and what proves the user.

    Raises:
        SettingsError: One is missing or wrong.
    """
    login = Login(
        host=options.text("host"),
        port=options.port("port", _SSH_PORT),
        user=options.text("user"),
        known_hosts=options.path("known_hosts"),
        key_file=options.optional_path("key_file"),
        passphrase=options.secret("passphrase"),
        password=options.secret("password"),
        timeout_seconds=options.seconds("timeout", 60.0),
    )
    if (login.key_file is None) == (login.password is None):
        raise SettingsError("give either `key_file`, or `password_file` or `password_env`")
    if login.passphrase is not None and login.key_file is None:
        raise SettingsError("the option `key_file` is missing beside its passphrase")
    return login


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _paramiko() -> Any:
    try:
        import paramiko
    except ImportError as problem:
        raise ToolMissingError(
            "SSH needs the Python package paramiko",
            resolution="Install Coppice with it: pip install 'coppice[sftp]'",
        ) from problem
    return paramiko
