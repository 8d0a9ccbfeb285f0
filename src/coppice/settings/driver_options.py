# SPDX-License-Identifier: Apache-2.0
"""The options of a plug-in: read one by one, each of its type; what nobody asked for is refused."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from coppice.errors import CredentialError, SettingsError
from coppice.http.credential import check_private
from coppice.model.credential import CredentialKind, CredentialReference
from coppice.settings.quantities import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.settings.model import TransferSettings

SECRET_LIMIT_BYTES = 64 * 1024
_PORT_LIMIT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Where a secret lies; it is read when it is needed, and kept nowhere.

    Attributes:
        file: Its first line is the secret.
        variable: Or the environment variable that holds it.
    """

    file: Path | None = None
    variable: str | None = None

    def read(self) -> str:
        """Return the secret.

        Raises:
            CredentialError: It is missing or empty.
        """
        if self.file is not None:
            where = f"the file {self.file}"
            check_private(self.file, "the file of a secret")
            try:
                with self.file.open("rb") as stream:
                    text = stream.read(SECRET_LIMIT_BYTES).decode("utf-8")
            except (OSError, UnicodeDecodeError) as problem:
                reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
                raise CredentialError(f"the secret in {where} cannot be read: {reason}") from problem
            secret = (text.splitlines() or [""])[0].strip()
        else:
            where = f"the environment variable {self.variable}"
            secret = os.environ.get(self.variable or "", "").strip()
        if not secret:
            raise CredentialError(f"{where} holds no secret", resolution="Put the secret there, on one line.")
        return secret


class Options:
    """What stands in a plug-in's table of the settings beside ``driver``.

    Args:
        values: As the settings give them.
        transfer: Bounds on transfers, for publishers that use Coppice's own client.
        of: What is called so in errors.
    """

    def __init__(
        self, values: Mapping[str, object], transfer: TransferSettings | None = None, *, of: str = "this publisher"
    ) -> None:
        self._values = values
        self._of = of
        self._asked: set[str] = set()
        self.transfer = transfer

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text that must be there when there is no default."""
        found = self.optional_text(name)
        if found is None:
            if default is None:
                raise SettingsError(f"the option `{name}` is missing")
            return default
        return found

    def optional_text(self, name: str) -> str | None:
        """Return a text, or None when it is not given."""
        value = self._value(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            _wrong(name, "one line of text")
        return value

    def path(self, name: str) -> Path:
        """Return a path that must be there."""
        found = self.optional_path(name)
        if found is None:
            raise SettingsError(f"the option `{name}` is missing")
        return found

    def optional_path(self, name: str) -> Path | None:
        """Return a path, or None when it is not given."""
        value = self._value(name)
        if isinstance(value, Path):
            return value.expanduser().absolute()
        text = self.optional_text(name)
        return None if text is None else Path(text).expanduser().absolute()

    def switch(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self._value(name)
        if value is None:
            return default
        if isinstance(value, str) and value in {"true", "false"}:
            return value == "true"
        if not isinstance(value, bool):
            _wrong(name, "true or false")
        return value

    def port(self, name: str, default: int) -> int:
        """Return a port number."""
        value = self._value(name)
        if value is None:
            return default
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _PORT_LIMIT:
            _wrong(name, "a port number")
        return value

    def seconds(self, name: str, default: float) -> float:
        """Return a duration in seconds, above zero."""
        value = self._value(name)
        if value is None:
            return default
        try:
            seconds = parse_duration(value)
        except ValueError as problem:
            raise SettingsError(f"the option `{name}`: {problem}") from problem
        if seconds <= 0:
            _wrong(name, "a duration above zero")
        return seconds

    def size(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a size in bytes within bounds."""
        value = self._value(name)
        if value is None:
            return default
        try:
            size = parse_size(value)
        except ValueError as problem:
            raise SettingsError(f"the option `{name}`: {problem}") from problem
        if not least <= size <= most:
            _wrong(name, f"a size from {least} to {most} bytes")
        return size

    def choice(self, name: str, known: tuple[str, ...]) -> str:
        """Return one of the known words; the first when none is given."""
        found = self.optional_text(name)
        if found is not None and found not in known:
            _wrong(name, f"one of {', '.join(known)}")
        return found or known[0]

    def secret(self, name: str) -> Secret | None:
        """Return where the secret ``name`` lies: ``name_file`` or ``name_env``."""
        file, variable = self.optional_path(f"{name}_file"), self.optional_text(f"{name}_env")
        if file is not None and variable is not None:
            raise SettingsError(f"give `{name}_file` or `{name}_env`, not both")
        return None if file is None and variable is None else Secret(file=file, variable=variable)

    def credential(self) -> CredentialReference | None:
        """Return how a server is shown who asks: a bearer token, an access token, a password, or a certificate.

        Raises:
            SettingsError: There is more than one, or one is incomplete.
        """
        references = [each for each in (self._bearer(), self._basic(), self._certificate()) if each is not None]
        if len(references) > 1:
            raise SettingsError("there is more than one credential", resolution="Leave one of them.")
        return references[0] if references else None

    def _bearer(self) -> CredentialReference | None:
        secret = self.secret("bearer_token")
        if secret is None:
            return None
        return CredentialReference(kind=CredentialKind.BEARER, secret_file=secret.file, secret_variable=secret.variable)

    def _basic(self) -> CredentialReference | None:
        token, password, username = self.secret("access_token"), self.secret("password"), self.optional_text("username")
        if (username is None) != (password is None) or (token is not None and password is not None):
            raise SettingsError("give `username` with `password_file` or `password_env`, or an access token alone")
        secret = token or password
        if secret is None:
            return None
        return CredentialReference(
            kind=CredentialKind.BASIC,
            username=username,
            secret_file=secret.file,
            secret_variable=secret.variable,
        )

    def _certificate(self) -> CredentialReference | None:
        certificate, key = self.optional_path("certificate"), self.optional_path("key")
        passphrase = self.secret("key_passphrase")
        if certificate is None:
            if key is not None or passphrase is not None:
                raise SettingsError("the option `certificate` is missing beside `key`")
            return None
        return CredentialReference(
            kind=CredentialKind.CLIENT_CERTIFICATE,
            certificate=certificate,
            key=key,
            secret_file=None if passphrase is None else passphrase.file,
            secret_variable=None if passphrase is None else passphrase.variable,
        )

    def finish(self) -> None:
        """Refuse what nobody asked for.

        Raises:
            SettingsError: There is such an option.
        """
        unknown = sorted(set(self._values) - self._asked)
        if unknown:
            known = ", ".join(f"`{name}`" for name in sorted(self._asked))
            raise SettingsError(f"unknown option {unknown[0]!r} of {self._of}", resolution=f"It takes {known}.")

    def _value(self, name: str) -> object:
        self._asked.add(name)
        return self._values.get(name)


def _wrong(name: str, expected: str) -> NoReturn:
    raise SettingsError(f"the option `{name}` must be {expected}")
