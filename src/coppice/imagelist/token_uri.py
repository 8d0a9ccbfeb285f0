# SPDX-License-Identifier: Apache-2.0
"""The name of a key on a token: a ``pkcs11:`` URI (RFC 7512). Pure.

Of what RFC 7512 has, those attributes are read that name one key: ``token``, ``serial``, ``manufacturer``, ``model``,
``slot-id``, ``object``, ``id``, ``type`` and ``module-path``. Any other is refused: a key that is not the one that was
meant must not sign. A PIN has no place in a URI: it would stand in the database, in shell histories and in logs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from coppice.errors import InputError

SCHEME = "pkcs11:"
MAX_URI_LENGTH = 4096
_PATH_ATTRIBUTES = frozenset({"token", "serial", "manufacturer", "model", "slot-id", "object", "id", "type"})
_SECRETS = frozenset({"pin-value", "pin-source"})
# RFC 7512, 2.3: unreserved, percent-encoded, and these. A blank or a quote hints at a shell's mistake.
_VALUE = re.compile(r"(?:[A-Za-z0-9._~:\[\]@!$'()*+,=&/?|-]|%[0-9A-Fa-f]{2})*")
_HINT = (
    "Write it as p11tool and pkcs11-tool do: "
    "pkcs11:token=NAME;object=LABEL?module-path=/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUri:
    """One private key on one token.

    Attributes:
        module: The PKCS#11 module: a shared library.
        token: The token's label.
        serial: Its serial number.
        manufacturer: Its maker.
        model: Its model.
        slot: Number of the slot that it is in.
        label: The key's label (``CKA_LABEL``).
        identifier: The key's identifier (``CKA_ID``).
    """

    module: Path
    token: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    slot: int | None = None
    label: str | None = None
    identifier: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> TokenUri:
        """Read ``text``.

        Raises:
            InputError: It is no such URI, names a PIN, or does not name one key on one token; the message never
                repeats what follows a PIN attribute.
        """
        path, query = _split(text)
        found = {name: _decode(name, value) for name, value in path.items()}
        if found.get("type", "private") != "private":
            raise _refuse("it must name a private key (type=private)")
        if not {"token", "serial", "slot-id"} & found.keys():
            raise _refuse("it does not say which token: token, serial or slot-id is needed")
        if not {"object", "id"} & found.keys():
            raise _refuse("it does not say which key: object or id is needed")
        module = _decode("module-path", query.get("module-path", ""))
        if not module.startswith("/"):
            raise _refuse("module-path is needed: the full path of the token's PKCS#11 module")
        slot = found.get("slot-id")
        if slot is not None and not re.fullmatch(r"[0-9]{1,19}", slot):
            raise _refuse("slot-id must be a number")
        return cls(
            module=Path(module),
            token=found.get("token"),
            serial=found.get("serial"),
            manufacturer=found.get("manufacturer"),
            model=found.get("model"),
            slot=int(slot) if slot is not None else None,
            label=found.get("object"),
            identifier=unquote_to_bytes(path["id"]) if "id" in path else None,
        )

    def __str__(self) -> str:
        """Return what it names, for people."""
        key = " and ".join(
            [
                *([f"label {self.label!r}"] if self.label is not None else []),
                *([f"identifier {self.identifier.hex()}"] if self.identifier is not None else []),
            ]
        )
        return f"the key with {key} on {self.place}"

    @property
    def place(self) -> str:
        """The token, for people."""
        if self.token is not None:
            return f"the token {self.token!r}"
        return f"the token of serial number {self.serial!r}" if self.serial else f"the token in slot {self.slot}"


def is_token_uri(text: str) -> bool:
    """Tell whether ``text`` is meant to name a key on a token."""
    return text[: len(SCHEME)].lower() == SCHEME


def _split(text: str) -> tuple[dict[str, str], dict[str, str]]:
    if not is_token_uri(text) or len(text) > MAX_URI_LENGTH:
        raise _refuse(f"it must begin with {SCHEME} and be at most {MAX_URI_LENGTH} characters long")
    path, _, query = text[len(SCHEME) :].partition("?")
    named = _attributes(query, "&")
    if _SECRETS & named.keys():
        raise InputError(
            "a PIN does not belong in the pkcs11: URI",
            details="The URI is kept in the database, and stands in histories and process lists.",
            resolution="Leave pin-value and pin-source out, and use --passphrase-file, --passphrase-variable or "
            "--ask-passphrase. Whoever could read the URI may know the PIN now: change it.",
        )
    unknown = named.keys() - {"module-path"}
    places = _attributes(path, ";")
    unknown |= places.keys() - _PATH_ATTRIBUTES
    if unknown:
        raise _refuse(f"the attribute {min(unknown)[:40]!r} is not one that is read here")
    return places, named


def _attributes(text: str, separator: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(separator) if text else []:
        name, equals, value = part.partition("=")
        # What is malformed is not shown: it may be a PIN.
        if not equals or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise _refuse("an attribute of it is not of the form name=value")
        if name in found:
            raise _refuse(f"the attribute {name} stands there twice")
        if not _VALUE.fullmatch(value):
            raise _refuse(f"the value of {name} has a character that must be written as %XX")
        found[name] = value
    return found


def _decode(name: str, value: str) -> str:
    raw = unquote_to_bytes(value)
    if name == "id":
        return raw.hex()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise _refuse(f"the value of {name} is not UTF-8") from problem
    if "\0" in text:
        raise _refuse(f"the value of {name} holds a zero character")
    return text


def _refuse(why: str) -> InputError:
    return InputError(f"the pkcs11: URI cannot be used: {why}", resolution=_HINT)
