# SPDX-License-Identifier: Apache-2.0
"""`Credential`: a secret, read from where its reference says, for as long as a request lasts.

It is shown to one server only, over TLS that was verified before. It has no form that can be printed, logged or
stored; what is stored is the reference.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from coppice.errors import CredentialError
from coppice.model.credential import CredentialKind, CredentialReference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECRET_LIMIT_BYTES = 8192
TOKEN_PASSWORD = "x-oauth-basic"  # noqa: S105 - what marketplaces want beside a token; no secret
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_BEARER = re.compile(r"[\x21-\x7e]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A TLS client certificate, as files that OpenSSL reads.

    Attributes:
        certificate: PEM file of the certificate, with its chain.
        key: PEM file of its key.
        passphrase: Of the key; None: it is not encrypted.
    """

    certificate: Path
    key: Path
    passphrase: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Shows a server who asks. Only the kind of it is ever printed.

    Attributes:
        kind: How it is shown.
        authorization: Value of the Authorization header; None for a client certificate.
        certificate: For the TLS connection; None for the others.
    """

    kind: CredentialKind
    authorization: str | None = field(default=None, repr=False)
    certificate: ClientCertificate | None = field(default=None, repr=False)

    def __reduce__(self) -> NoReturn:
        """Refuse to be written anywhere.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a credential is not stored or sent to another process; its reference is")

    @classmethod
    def basic(cls, username: str, password: str) -> Credential:
        """Return a credential for HTTP basic (RFC 7617).

        Raises:
            CredentialError: Name or password hold characters that cannot be sent.
        """
        if ":" in username or _CONTROL.search(username) or _CONTROL.search(password):
            raise CredentialError(
                "the user name or the password cannot be sent by HTTP basic",
                resolution="A user name has no colon in it, and neither has control characters.",
            )
        try:
            pair = f"{username}:{password}".encode()
        except UnicodeEncodeError:
            raise CredentialError("the user name or the password is not text") from None
        return cls(kind=CredentialKind.BASIC, authorization="Basic " + base64.b64encode(pair).decode("ascii"))

    @classmethod
    def bearer(cls, token: str) -> Credential:
        """Return a credential for a bearer token (RFC 6750).

        Raises:
            CredentialError: The token holds characters that cannot be sent.
        """
        if not _BEARER.fullmatch(token):
            raise CredentialError(
                "the bearer token cannot be sent",
                resolution="A token consists of visible ASCII characters, on one line.",
            )
        return cls(kind=CredentialKind.BEARER, authorization=f"Bearer {token}")


def resolve_credential(reference: CredentialReference, environment: Mapping[str, str] | None = None) -> Credential:
    """Read the secret that ``reference`` names.

    Args:
        reference: Where it lies.
        environment: Takes the place of the process's own variables.

    Raises:
        CredentialError: It cannot be read, is not fit to be sent, or others can read it too.
    """
    variables = os.environ if environment is None else environment
    if reference.secret_file is not None and reference.secret_variable is not None:
        raise CredentialError(
            f"a credential has two sources: the file {reference.secret_file} and the variable "
            f"{reference.secret_variable[:80]!r}",
            resolution="Name one.",
        )
    secret = _secret(reference, variables)
    if reference.kind is CredentialKind.CLIENT_CERTIFICATE:
        return _client_certificate(reference, secret)
    if secret is None:
        raise CredentialError(
            f"no file and no variable is named that holds the {reference.kind} credential",
            resolution="Name the file or the variable that the secret is in.",
        )
    if reference.kind is CredentialKind.BEARER:
        return Credential.bearer(secret)
    if reference.username is None:
        return Credential.basic(secret, TOKEN_PASSWORD)
    return Credential.basic(reference.username, secret)


def read_secret(file: Path | None, variable: str | None, environment: Mapping[str, str] | None = None) -> str:
    """Return a secret that is shown to no server: the first line of a file, or the value of a variable.

    Args:
        file: Where it lies.
        variable: Variable that holds it instead.
        environment: Takes the place of the process's own variables.

    Raises:
        CredentialError: It cannot be read, or others can read it too; or neither is named.
    """
    reference = CredentialReference(kind=CredentialKind.BEARER, secret_file=file, secret_variable=variable)
    secret = _secret(reference, os.environ if environment is None else environment)
    if secret is None:
        raise CredentialError("no file and no variable is named that holds the secret")
    return secret


def read_pair(reference: CredentialReference, environment: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Read a user name and its secret, for servers that are not asked over HTTP.

    Args:
        reference: Where they lie.
        environment: Takes the place of the process's own variables.

    Raises:
        CredentialError: It is no such pair, cannot be read, or others can read it too.
    """
    if reference.kind is not CredentialKind.BASIC or reference.username is None:
        raise CredentialError(
            f"a user name and a secret are needed here, not a {reference.kind} credential",
            resolution="Name a user name, and the file or variable that its secret is in.",
        )
    secret = _secret(reference, os.environ if environment is None else environment)
    if secret is None:
        raise CredentialError(
            f"no file and no variable is named that holds the secret of {reference.username!r}",
            resolution="Name the file or the variable that the secret is in.",
        )
    return reference.username, secret


def check_private(path: Path, what: str) -> None:
    """Refuse a file of secrets that everybody on this machine can read or change.

    Raises:
        CredentialError: It is such a file, or cannot be looked at.
    """
    try:
        _check_mode(path, what, path.stat().st_mode)
    except (OSError, ValueError) as problem:
        raise _unreadable(path, what, problem) from problem


def _secret(reference: CredentialReference, variables: Mapping[str, str]) -> str | None:
    if reference.secret_file is not None:
        return _first_line(reference.secret_file)
    name = reference.secret_variable
    if name is None:
        return None
    if not _VARIABLE.fullmatch(name):
        raise CredentialError(f"{name[:80]!r} cannot name an environment variable")
    value = variables.get(name, "")
    if not value:
        raise CredentialError(
            f"the environment variable {name} is not set",
            resolution=f"Set {name} to the secret, in the environment that Coppice runs in.",
        )
    if len(value) > SECRET_LIMIT_BYTES:
        raise CredentialError(f"the environment variable {name} is longer than {SECRET_LIMIT_BYTES} characters")
    return value


def _first_line(path: Path) -> str:
    what = "the file of a secret"
    try:
        # Not to wait for a writer, should it be a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            _check_mode(path, what, os.fstat(handle).st_mode)
            line = stream.readline(SECRET_LIMIT_BYTES + 1)
    except (OSError, ValueError) as problem:
        raise _unreadable(path, what, problem) from problem
    line = line.rstrip(b"\r\n")
    if not line or len(line) > SECRET_LIMIT_BYTES:
        raise CredentialError(
            f"{what}, {path}, has {'a first line that is too long' if line else 'nothing in its first line'}",
            resolution=f"Its first line is the secret: 1 to {SECRET_LIMIT_BYTES} bytes.",
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        # Without its cause, which holds the bytes.
        raise CredentialError(f"{what}, {path}, is not UTF-8 text") from None


def _client_certificate(reference: CredentialReference, passphrase: str | None) -> Credential:
    if reference.certificate is None:
        raise CredentialError(
            "no file is named that holds the client certificate", resolution="Name its PEM file, and that of its key."
        )
    key = reference.key or reference.certificate
    check_private(key, "the key of a client certificate")
    found = ClientCertificate(certificate=reference.certificate, key=key, passphrase=passphrase)
    return Credential(kind=CredentialKind.CLIENT_CERTIFICATE, certificate=found)


def _check_mode(path: Path, what: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise CredentialError(f"{what}, {path}, is no regular file")
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise CredentialError(
            f"{what}, {path}, can be {'read' if mode & stat.S_IROTH else 'changed'} by everybody on this machine",
            details=f"mode {stat.S_IMODE(mode):04o}",
            resolution=f"Run `chmod 600 {path}`; if others may have seen it, have a new secret made.",
            context={"path": str(path)},
        )


def _unreadable(path: Path, what: str, problem: OSError | ValueError) -> CredentialError:
    return CredentialError(
        f"{what}, {path}, cannot be read: {problem.strerror if isinstance(problem, OSError) else problem}",
        resolution="Check the path, and that Coppice runs as a user who may read it.",
        context={"path": str(path)},
    )
