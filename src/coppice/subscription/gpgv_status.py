# SPDX-License-Identifier: Apache-2.0
"""What ``gpgv`` says on its status descriptor (GnuPG, doc/DETAILS), read strictly: an unknown word refuses all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NoReturn

from coppice.errors import SignatureFormError

_PREFIX = "[GNUPG:] "
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_KEY_ID = re.compile(r"[0-9A-F]{16}|[0-9A-F]{40}|[0-9A-F]{64}")
_NUMBER = re.compile(r"[0-9]{1,12}")
_PASSED_OVER = frozenset(
    {
        "KEY_CONSIDERED",
        "NOTATION_DATA",
        "NOTATION_FLAGS",
        "NOTATION_NAME",
        "NO_PUBKEY",
        "PLAINTEXT",
        "PLAINTEXT_LENGTH",
        "POLICY_URL",
        "SIGEXPIRED",
        "SIG_ID",
        "VERIFICATION_COMPLIANCE_MODE",
    }
)
_MISSING_KEY = "9"
_VALIDSIG_FIELDS, _ERRSIG_FIELDS = 10, 6


class Verdict(StrEnum):
    """What became of one signature."""

    GOOD = "good"
    KEY_EXPIRED = "key-expired"
    """It is good, and its key has expired meanwhile."""
    EXPIRED = "expired"
    """It is good, and the signature itself has expired."""
    REVOKED = "revoked"
    """It is good, and its key is revoked."""
    BAD = "bad"
    UNKNOWN_KEY = "unknown-key"
    UNREADABLE = "unreadable"
    """Of an algorithm or form that cannot be judged."""


_WORDS = {
    "GOODSIG": Verdict.GOOD,
    "EXPKEYSIG": Verdict.KEY_EXPIRED,
    "EXPSIG": Verdict.EXPIRED,
    "REVKEYSIG": Verdict.REVOKED,
    "BADSIG": Verdict.BAD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureStatus:
    """What ``gpgv`` says of one signature.

    Attributes:
        verdict: What became of it.
        key: The key that signed: fingerprint, or key ID where no more is known.
        primary: Fingerprint of its primary key; empty unless the signature holds.
        signed_at: When it was made; None unless it holds.
        expires: When it ends; None: never.
        key_expired_at: When its key expired; None: it did not.
        algorithm: OpenPGP's number of the key's algorithm.
        digest: OpenPGP's number of the digest.
        signature_class: ``00``: of a document; ``01``: of a text.
    """

    verdict: Verdict
    key: str
    primary: str = ""
    signed_at: datetime | None = None
    expires: datetime | None = None
    key_expired_at: datetime | None = None
    algorithm: int = 0
    digest: int = 0
    signature_class: str = ""


def read_status(output: bytes, what: str) -> tuple[SignatureStatus, ...]:
    """Return what is said of each signature, in the order of the document.

    Args:
        output: The status lines.
        what: Names the document in errors.

    Raises:
        SignatureFormError: Something is said that has no place here: the document is malformed.
    """
    sections: list[list[list[str]]] = []
    for line in output.decode("utf-8", errors="replace").split("\n"):
        if not line:
            continue
        words = line.removeprefix(_PREFIX).split(" ")
        if not line.startswith(_PREFIX):
            _refuse(what, line)
        if words[0] == "NEWSIG":
            sections.append([])
        elif words[0] in _WORDS or words[0] in {"VALIDSIG", "ERRSIG", "KEYEXPIRED"}:
            if not sections:
                _refuse(what, line)
            sections[-1].append(words)
        elif words[0] not in _PASSED_OVER and words[0] != "KEYREVOKED":
            _refuse(what, line)
    return tuple(_signature(section, what) for section in sections)


def _signature(section: list[list[str]], what: str) -> SignatureStatus:
    by_word = {words[0]: words for words in section if words[0] != "KEYEXPIRED"}
    expired = [_instant(words[1], what) for words in section if words[0] == "KEYEXPIRED" and len(words) > 1]
    if len(by_word) != len([words for words in section if words[0] != "KEYEXPIRED"]):
        _refuse(what, "a signature with two verdicts")
    verdicts = [_WORDS[word] for word in by_word if word in _WORDS]
    if "ERRSIG" in by_word:
        if len(by_word) != 1:
            _refuse(what, "a signature with two verdicts")
        return _not_judged(by_word["ERRSIG"], what)
    if len(verdicts) != 1:
        _refuse(what, "a signature without a verdict")
    verdict, valid = verdicts[0], by_word.get("VALIDSIG")
    if verdict is Verdict.BAD:
        if valid is not None:
            _refuse(what, "a signature with two verdicts")
        return SignatureStatus(verdict=verdict, key=_key(by_word["BADSIG"][1:2], what))
    if valid is None or len(valid) <= _VALIDSIG_FIELDS:
        _refuse(what, "a signature without its facts")
    if not (_FINGERPRINT.fullmatch(valid[1]) and _FINGERPRINT.fullmatch(valid[10])):
        _refuse(what, " ".join(valid))
    return SignatureStatus(
        verdict=verdict,
        key=valid[1],
        primary=valid[10],
        signed_at=_instant(valid[3], what),
        expires=None if valid[4] == "0" else _instant(valid[4], what),
        key_expired_at=min(expired) if expired else None,
        algorithm=_number(valid[7], what),
        digest=_number(valid[8], what),
        signature_class=valid[9],
    )


def _not_judged(words: list[str], what: str) -> SignatureStatus:
    if len(words) <= _ERRSIG_FIELDS:
        _refuse(what, " ".join(words))
    # Newer ones give the fingerprint as well, where the signature tells it.
    named = words[7:8] if words[7:8] not in ([], ["-"], [""]) else words[1:2]
    return SignatureStatus(
        verdict=Verdict.UNKNOWN_KEY if words[6] == _MISSING_KEY else Verdict.UNREADABLE,
        key=_key(named, what),
        algorithm=_number(words[2], what),
        digest=_number(words[3], what),
        signature_class=words[4],
    )


def _key(words: list[str], what: str) -> str:
    if not words or not _KEY_ID.fullmatch(words[0]):
        _refuse(what, "a signature by no key")
    return words[0]


def _number(text: str, what: str) -> int:
    if not _NUMBER.fullmatch(text):
        _refuse(what, text)
    return int(text)


def _instant(text: str, what: str) -> datetime:
    # Seconds since 1970; where the field is too small for a date, GnuPG may write it as in ISO 8601.
    try:
        if "T" in text:
            return datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        return datetime.fromtimestamp(_number(text, what), UTC)
    except (ValueError, OverflowError, OSError):
        _refuse(what, text)


def _refuse(what: str, said: str) -> NoReturn:
    raise SignatureFormError(
        f"the signature of {what} is malformed", details=f"gpgv: {said[:200]}".encode("unicode_escape").decode()
    )
