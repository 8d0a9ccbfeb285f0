# SPDX-License-Identifier: Apache-2.0
"""Who vouches for an image list, and the distinguished names that say so.

Names are compared as structures, never as strings: the slash form that image lists carry is ambiguous, since a value
may itself contain ``/CN=``. Such a value makes another structure than the two attributes that it imitates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONELINE_SPLIT = re.compile(r"/(?=[A-Za-z][A-Za-z0-9.-]*=|\d+(?:\.\d+)+=)")
_ATTRIBUTE_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9.-]*|\d+(?:\.\d+)+")
_RFC4514_SPLIT = re.compile(r"(?<!\\),")
_ALIASES = {
    "email": "emailaddress",
    "e": "emailaddress",
    "1.2.840.113549.1.9.1": "emailaddress",
    "2.5.4.3": "cn",
    "2.5.4.6": "c",
    "2.5.4.7": "l",
    "2.5.4.8": "st",
    "s": "st",
    "2.5.4.10": "o",
    "2.5.4.11": "ou",
    "0.9.2342.19200300.100.1.25": "dc",
    "0.9.2342.19200300.100.1.1": "uid",
    "userid": "uid",
    "2.5.4.5": "serialnumber",
    "2.5.4.4": "sn",
    "2.5.4.42": "gn",
}
_DISPLAY = {"emailaddress": "emailAddress", "uid": "UID", "serialnumber": "serialNumber"}
MAX_NAME_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class DistinguishedName:
    """An X.500 name as the sequence of its attributes, most general first.

    Attributes:
        attributes: Pairs of (attribute type in lower case by its short name, or dotted OID; value).
    """

    attributes: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, *pairs: tuple[str, str]) -> DistinguishedName:
        """Return the name made of ``pairs``, with attribute types brought to their one spelling."""
        return cls(tuple((_canonical_type(kind), value) for kind, value in pairs))

    @classmethod
    def parse(cls, text: str) -> DistinguishedName:
        """Read the slash form of image lists (``/DC=org/CN=Jane``) or the comma form of RFC 4514 (``CN=Jane,DC=org``).

        Raises:
            ValueError: It has neither form, or is longer than `MAX_NAME_LENGTH`.
        """
        if len(text) > MAX_NAME_LENGTH:
            message = f"distinguished name longer than {MAX_NAME_LENGTH} characters"
            raise ValueError(message)
        stripped = text.strip()
        if stripped.startswith("/"):
            head, *parts = _ONELINE_SPLIT.split(stripped)
            if head or not parts:
                message = f"not a distinguished name such as /DC=org/CN=Jane: {text[:120]!r}"
                raise ValueError(message)
            return cls.of(*(_pair(part, text) for part in parts))
        parts = [part.strip() for part in _RFC4514_SPLIT.split(stripped)]
        pairs = [_pair(part, text) for part in reversed(parts)]
        return cls.of(*((kind, re.sub(r"\\(.)", r"\1", value)) for kind, value in pairs))

    def __str__(self) -> str:
        """Return the slash form, for people and for image lists."""
        return "".join(f"/{_display(kind)}={value}" for kind, value in self.attributes)


def _display(kind: str) -> str:
    return _DISPLAY.get(kind, kind.upper() if kind.isalpha() else kind)


def _pair(part: str, whole: str) -> tuple[str, str]:
    kind, separator, value = part.partition("=")
    if not separator or not _ATTRIBUTE_TYPE.fullmatch(kind.strip()):
        message = f"not a distinguished name such as /DC=org/CN=Jane: {whole[:120]!r}"
        raise ValueError(message)
    return kind.strip(), value


def _canonical_type(kind: str) -> str:
    lowered = kind.lower()
    return _ALIASES.get(lowered, lowered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorser:
    """Who confirms that a list's images were made as its policy demands.

    Attributes:
        name: ``dc:creator``.
        email: ``hv:email``.
        subject: ``hv:dn``: the subject of the endorser's certificate.
        issuer: ``hv:ca``: the subject of the authority that issued it.
    """

    name: str
    email: str
    subject: DistinguishedName
    issuer: DistinguishedName
