# SPDX-License-Identifier: Apache-2.0
"""X.500 names, compared as structures whatever form they are written in.

Two names are equal when they have the same relative names in the same order, each with the same attributes. Attribute
types are one whatever their spelling or case (``E``, ``Email``, ``emailAddress``, ``1.2.840.113549.1.9.1``). Values
are texts, whatever string type a certificate keeps them in; they are brought to Unicode's form NFC, in which one text
has one encoding, and then compared exactly: neither case nor white space is made equal, since an authority may tell
two people apart by either.

Read are the slash form of image lists and of grid software (``/DC=org/CN=Jane``), the comma form of RFC 2253 and
RFC 4514 (``CN=Jane,DC=org``: most special first), and what ``openssl x509 -subject`` prints (``DC = org, CN = Jane``:
most general first, told from the other by the blanks around its equals signs).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.model.name_text import escape_value, read_comma_form, read_slash_form

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.model.name_text import Relative

MAX_NAME_LENGTH = 4096
_NAMES = {
    "cn": "2.5.4.3 commonname",
    "sn": "2.5.4.4 surname",
    "serialnumber": "2.5.4.5",
    "c": "2.5.4.6 countryname",
    "l": "2.5.4.7 localityname",
    "st": "2.5.4.8 stateorprovincename s sp",
    "street": "2.5.4.9 streetaddress",
    "o": "2.5.4.10 organizationname",
    "ou": "2.5.4.11 organizationalunitname",
    "title": "2.5.4.12 t",
    "description": "2.5.4.13",
    "businesscategory": "2.5.4.15",
    "postalcode": "2.5.4.17",
    "name": "2.5.4.41",
    "gn": "2.5.4.42 givenname g",
    "initials": "2.5.4.43",
    "generationqualifier": "2.5.4.44",
    "x500uniqueidentifier": "2.5.4.45",
    "dnqualifier": "2.5.4.46",
    "pseudonym": "2.5.4.65",
    "organizationidentifier": "2.5.4.97",
    "uid": "0.9.2342.19200300.100.1.1 userid",
    "dc": "0.9.2342.19200300.100.1.25 domaincomponent",
    "emailaddress": "1.2.840.113549.1.9.1 email e pkcs9email",
    "unstructuredname": "1.2.840.113549.1.9.2",
    "unstructuredaddress": "1.2.840.113549.1.9.8",
}
"""Attribute types by the one spelling that is kept here, with their other spellings (X.520, RFC 4519, OpenSSL)."""
_SPELLINGS = {spelling: kind for kind, spellings in _NAMES.items() for spelling in (kind, *spellings.split())}
_DISPLAY = {
    "emailaddress": "emailAddress",
    "serialnumber": "serialNumber",
    "street": "street",
    "title": "title",
    "description": "description",
    "businesscategory": "businessCategory",
    "postalcode": "postalCode",
    "name": "name",
    "initials": "initials",
    "generationqualifier": "generationQualifier",
    "x500uniqueidentifier": "x500UniqueIdentifier",
    "dnqualifier": "dnQualifier",
    "pseudonym": "pseudonym",
    "organizationidentifier": "organizationIdentifier",
    "unstructuredname": "unstructuredName",
    "unstructuredaddress": "unstructuredAddress",
}
_JOINED = re.compile(r"(?:[^\\+]|\\.)*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DistinguishedName:
    r"""An X.500 name as the sequence of its relative names, most general first.

    Attributes:
        attributes: A pair for each relative name: (attribute type, value). The type is in lower case, by its short
            name or else as dotted OID. A relative name of several attributes is one pair too: types and values are in
            a fixed order, each joined by ``+``; in the values, ``\`` and ``+`` have a ``\`` before them.
    """

    attributes: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, *pairs: tuple[str, str]) -> DistinguishedName:
        """Return the name made of ``pairs``, as `attributes` keeps them; types and values are brought to one form."""
        return cls(tuple(_canonical_pair(kind, value) for kind, value in pairs))

    @classmethod
    def of_relatives(cls, relatives: Iterable[Relative]) -> DistinguishedName:
        """Return the name made of relative names, most general first, each a sequence of (type, value)."""
        return cls(tuple(_joined([(_canonical_type(kind), value) for kind, value in each]) for each in relatives))

    @classmethod
    def parse(cls, text: str) -> DistinguishedName:
        """Read a name in one of the forms that the module names.

        Raises:
            ValueError: It has none of them, or is longer than `MAX_NAME_LENGTH`.
        """
        if len(text) > MAX_NAME_LENGTH:
            message = f"distinguished name longer than {MAX_NAME_LENGTH} characters"
            raise ValueError(message)
        stripped = text.strip(" \t\r\n")
        # At the end of the comma form a blank may belong to the value: its reader knows.
        relatives = read_slash_form(stripped) if stripped.startswith("/") else read_comma_form(text)
        if not relatives:
            message = f"not a distinguished name such as /DC=org/CN=Jane: {text[:120]!r}"
            raise ValueError(message)
        return cls.of_relatives(relatives)

    def __str__(self) -> str:
        r"""Return the slash form, for people and for image lists; no two names have the same.

        A slash or plus that would read as the beginning of another attribute, and every backslash, gets a ``\`` before
        it; what cannot be printed is written as ``\xHH`` for each of its UTF-8 bytes, as OpenSSL does.
        """
        return "".join(
            "/" + "+".join(f"{_display(kind)}={escape_value(value)}" for kind, value in _split(*pair))
            for pair in self.attributes
        )


def _display(kind: str) -> str:
    return _DISPLAY.get(kind, kind.upper() if kind.isalpha() else kind)


def _canonical_type(kind: str) -> str:
    lowered = kind.strip().lower().removeprefix("oid.")
    return _SPELLINGS.get(lowered, lowered)


def _canonical_pair(kind: str, value: str) -> tuple[str, str]:
    if "+" not in kind:
        return _canonical_type(kind), _normal(value)
    return _joined([(_canonical_type(each), part) for each, part in _split(kind, value)])


def _joined(attributes: list[tuple[str, str]]) -> tuple[str, str]:
    if len(attributes) == 1:
        [(kind, value)] = attributes
        return kind, _normal(value)
    ordered = sorted((kind, _normal(value)) for kind, value in attributes)
    return "+".join(kind for kind, _ in ordered), "+".join(re.sub(r"([\\+])", r"\\\1", value) for _, value in ordered)


def _split(kind: str, value: str) -> list[tuple[str, str]]:
    kinds = kind.split("+")
    if len(kinds) == 1:
        return [(kind, value)]
    values: list[str] = []
    position = 0
    while position <= len(value):
        match = _JOINED.match(value, position)
        if match is None:  # pragma: no cover - the pattern matches the empty text
            break
        values.append(re.sub(r"\\(.)", r"\1", match.group(), flags=re.DOTALL))
        position = match.end() + 1
    if len(values) != len(kinds):
        message = f"not a relative distinguished name of {len(kinds)} attributes: {kind[:60]!r}, {value[:60]!r}"
        raise ValueError(message)
    return list(zip(kinds, values, strict=True))


def _normal(value: str) -> str:
    return value if value.isascii() else unicodedata.normalize("NFC", value)
