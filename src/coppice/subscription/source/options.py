# SPDX-License-Identifier: Apache-2.0
"""The options of a subscription's source: read one by one, each of its type; what nobody asked for is refused.

Options come from a command line, as texts, or from a database, as what JSON has: a number may be either.
"""

from __future__ import annotations

import difflib
import math
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coppice.errors import InputError
from coppice.subscription.model import TrustBasis

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_TEXT_BYTES = 4096
MAX_TEXTS = 1000
TRUST = "trust"
"""Names the basis where nobody signs: ``transport`` or ``local``. There is no default."""
KEYRING = "keyring"
"""File of OpenPGP keys that may sign."""
COSIGN_KEY = "cosign_key"
"""File with the public key that signs manifests."""
NAMING_LIST = "list"
"""Name of the subscription whose signed list names the digests that are trusted."""
VALID_DAYS = "valid_days"
"""How long a list holds whose source signs no end."""
MAX_VALID_DAYS = 3660.0


class SourceOptions:
    """The options of one subscription's source.

    Args:
        driver: Names the source in errors.
        values: As they were given.
    """

    def __init__(self, driver: str, values: Mapping[str, object]) -> None:
        self._driver = driver
        self._values = values
        self._asked: set[str] = set()

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text that must be there when there is no default.

        Raises:
            InputError: It is missing, or is none.
        """
        found = self.optional_text(name)
        if found is not None:
            return found
        if default is None:
            raise InputError(
                f"the source {self._driver} needs the option {name!r}", resolution=f"Give it: --option {name}=…"
            )
        return default

    def optional_text(self, name: str) -> str | None:
        """Return a text, or None.

        Raises:
            InputError: It is none, is empty, or too long.
        """
        value = self._take(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip() or not _is_short(value):
            raise self._wrong(name, value, f"a text of 1 to {MAX_TEXT_BYTES} bytes")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return texts: an array, or one text with commas between them.

        Raises:
            InputError: They are none.
        """
        value = self._take(name)
        if value is None:
            return ()
        listed = value.split(",") if isinstance(value, str) else value
        if not isinstance(listed, list | tuple) or not 0 < len(listed) <= MAX_TEXTS:
            raise self._wrong(name, value, f"1 to {MAX_TEXTS} texts")
        found = tuple(each.strip() if isinstance(each, str) else "" for each in listed)
        if not all(found) or not all(map(_is_short, found)):
            raise self._wrong(name, value, f"texts of 1 to {MAX_TEXT_BYTES} bytes")
        return tuple(dict.fromkeys(found))

    def number(self, name: str, default: float, *, least: float, most: float) -> float:
        """Return a number within bounds.

        Raises:
            InputError: It is none.
        """
        value = self._take(name)
        if value is None:
            return default
        try:
            found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            found = math.nan
        if not least <= found <= most:
            raise self._wrong(name, value, f"a number from {least:g} to {most:g}")
        return found

    def whole_number(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number within bounds.

        Raises:
            InputError: It is none.
        """
        found = self.number(name, default, least=least, most=most)
        if found != int(found):
            raise self._wrong(name, found, "a whole number")
        return int(found)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a switch.

        Raises:
            InputError: It is none.
        """
        value = self._take(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if value not in {"yes", "no", "true", "false"}:
            raise self._wrong(name, value, "yes or no")
        return value in {"yes", "true"}

    def choice(self, name: str, known: Collection[str], default: str | None = None) -> str:
        """Return one of several texts.

        Raises:
            InputError: It is none of them, or it is missing and there is no default.
        """
        found = self.text(name, default)
        if found not in known:
            raise self._wrong(name, found, f"one of {', '.join(sorted(known))}")
        return found

    def optional_path(self, name: str) -> Path | None:
        """Return an absolute path, or None.

        Raises:
            InputError: It is not absolute: commands run in many directories.
        """
        found = self.optional_text(name)
        if found is None:
            return None
        path = Path(found)
        if not path.is_absolute() or "\0" in found:
            raise self._wrong(name, found, "an absolute path")
        return path

    def valid_days(self, default: float) -> float:
        """Return how long a list holds whose source signs no end.

        Raises:
            InputError: It is none.
        """
        return self.number(VALID_DAYS, default, least=1.0, most=MAX_VALID_DAYS)

    def unsigned_basis(self, *allowed: TrustBasis) -> TrustBasis | None:
        """Return by what a list is trusted that nobody signed; None: nobody said so, and so it is not.

        Raises:
            InputError: A basis is named that this source does not have.
        """
        found = self.optional_text(TRUST)
        if found is None:
            return None
        if found not in {str(each) for each in allowed}:
            raise self._wrong(TRUST, found, f"one of {', '.join(map(str, allowed))}" if allowed else "nothing")
        return TrustBasis(found)

    def finish(self) -> None:
        """Refuse what nobody asked for.

        Raises:
            InputError: There is an option that this source does not have.
        """
        unknown = sorted(set(self._values) - self._asked)
        if unknown:
            near = difflib.get_close_matches(unknown[0], sorted(self._asked), n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"the source {self._driver} has no option {unknown[0][:80]!r}.{meant}",
                resolution=f"Its options: {', '.join(sorted(self._asked)) or 'none'}.",
            )

    def _take(self, name: str) -> object:
        self._asked.add(name)
        return self._values.get(name)

    def _wrong(self, name: str, value: object, needed: str) -> InputError:
        shown = repr(value)[:80]
        return InputError(
            f"the option {name!r} of the source {self._driver} is {shown}; {needed} is needed",
            context={"option": name},
        )


def is_plain(uri: str) -> bool:
    """Tell whether an address is asked without TLS, beyond this machine: whoever is on the way can answer then.

    Nobody is believed by his server's name there.
    """
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError:
        return True
    if parts.scheme.lower() not in {"http", "oci+http"} or host == "localhost":
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


def _is_short(text: str) -> bool:
    try:
        return len(text.encode()) <= MAX_TEXT_BYTES
    except UnicodeEncodeError:
        return False
