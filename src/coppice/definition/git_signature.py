# SPDX-License-Identifier: Apache-2.0
"""Signatures of commits and tags, judged against one pinned key.

git is not asked: it would look into the configuration and keyrings of whoever runs it. The signature is parted from
what it covers here, and ``ssh-keygen`` or ``gpgv`` judges the two, with the pinned key and no other.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from coppice import process
from coppice.errors import (
    DefinitionSourceError,
    DocumentError,
    SignatureFormError,
    StorageError,
    ToolFailedError,
    UnsignedListError,
    UntrustedSignerError,
)
from coppice.formats.openpgp import read_keyring

if TYPE_CHECKING:
    from collections.abc import Callable

    OpenPgpJudge = Callable[[bytes, bytes, str, str], str]
    """(document, signature, keyring in ASCII, what) → the signer's fingerprint, or a `TrustError`."""

MAX_KEY_BYTES: Final = 64 * 1024
MAX_SIGNATURE_BYTES: Final = 64 * 1024
_TIMEOUT_SECONDS = 30
_SSH_BEGIN, _SSH_END = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
_PGP_BEGIN, _PGP_END = b"-----BEGIN PGP SIGNATURE-----", b"-----END PGP SIGNATURE-----"
_PGP_KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
_SSH_KEY_TYPE = r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-[a-z0-9-]+@openssh\.com)"
_SSH_PUBLIC = re.compile(rf"({_SSH_KEY_TYPE}) ([A-Za-z0-9+/]+=*)(?: .*)?")
_ALLOWED_SIGNER = re.compile(rf"[!-~]+ (?:[!-~]+ )?{_SSH_KEY_TYPE} [A-Za-z0-9+/]+=*(?: .*)?")
_PLAIN_SIGNER = re.compile(r"[!-~]{1,200}")


class KeyKind(StrEnum):
    """What a pinned key is of."""

    SSH = "ssh"
    OPENPGP = "openpgp"


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedKey:
    """Whose signatures are accepted.

    Attributes:
        kind: What it is of.
        text: Lines of an allowed-signers file of OpenSSH, or an ASCII-armoured OpenPGP keyring.
    """

    kind: KeyKind
    text: str

    @classmethod
    def read(cls, content: bytes, where: str) -> PinnedKey:
        """Return the key in a file: of OpenSSH (public key, or allowed signers) or OpenPGP (in ASCII).

        Args:
            content: Of the file.
            where: Names it in errors.

        Raises:
            DefinitionSourceError: It holds none.
        """
        if len(content) > MAX_KEY_BYTES:
            _no_key(where, f"is larger than {MAX_KEY_BYTES} bytes")
        if b"PRIVATE KEY" in content:
            _no_key(where, "is a private key")
        try:
            text = content.decode("ascii")
        except UnicodeDecodeError:
            _no_key(where, "is not plain text")
        if _PGP_KEY in text:
            try:
                read_keyring(content)
            except DocumentError as problem:
                _no_key(where, f"cannot be used: {problem.message}")
            return cls(kind=KeyKind.OPENPGP, text=text)
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        signers = [_signer(line) for line in lines]
        if not signers or None in signers:
            _no_key(where, "is neither a public key nor a list of allowed signers")
        return cls(kind=KeyKind.SSH, text="".join(f"{line}\n" for line in signers if line))


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A commit or a tag, and the signature that is in it.

    Attributes:
        payload: What is signed.
        signature: In its armour; empty: there is none.
    """

    payload: bytes
    signature: bytes


def signature_of_commit(raw: bytes) -> Signed:
    """Part a commit from its signature.

    Raises:
        SignatureFormError: It has several.
    """
    head, blank, message = raw.partition(b"\n\n")
    kept: list[bytes] = []
    signature: list[bytes] = []
    found, is_inside = 0, False
    for line in head.split(b"\n"):
        if is_inside and line.startswith(b" "):
            signature.append(line[1:])
            continue
        name = line.partition(b" ")[0]
        is_inside = name in {b"gpgsig", b"gpgsig-sha256"}
        if is_inside:
            found += 1
            signature.append(line.partition(b" ")[2])
        else:
            kept.append(line)
    if found > 1:
        raise SignatureFormError("the commit has several signatures")
    armour = b"\n".join(signature) + b"\n" if found else b""
    return Signed(payload=b"\n".join(kept) + blank + message, signature=armour)


def signature_of_tag(raw: bytes) -> Signed:
    """Part a tag from its signature, which is the end of its message."""
    starts = [raw.rfind(b"\n" + mark) for mark in (_SSH_BEGIN, _PGP_BEGIN)]
    begin = max(starts) + 1
    if not begin:
        return Signed(payload=raw, signature=b"")
    return Signed(payload=raw[:begin], signature=raw[begin:])


def tagged(raw: bytes) -> tuple[str, str, str]:
    """Return what a tag says: the object that it is of, that object's kind, and its own name.

    Raises:
        SignatureFormError: It does not say these.
    """
    match = re.match(rb"object ([0-9a-f]{40}|[0-9a-f]{64})\ntype ([a-z]+)\ntag ([^\n]+)\n", raw)
    if match is None:
        raise SignatureFormError("the tag is malformed")
    return match[1].decode(), match[2].decode(), match[3].decode("utf-8", errors="replace")


def judge(signed: Signed, key: PinnedKey, what: str, openpgp: OpenPgpJudge) -> str:
    """Return who signed.

    Args:
        signed: What, and the signature.
        key: Who alone may have.
        what: Names it in errors.
        openpgp: Judges signatures of OpenPGP.

    Raises:
        TrustError: It is not signed, not in a form that is accepted, or by somebody else.
        ToolMissingError: The program that judges is not installed.
    """
    if not signed.signature:
        raise UnsignedListError(f"{what} is not signed, and a key is pinned")
    kind, ends = (KeyKind.SSH, _SSH_END) if signed.signature.startswith(_SSH_BEGIN) else (KeyKind.OPENPGP, _PGP_END)
    is_whole = signed.signature.rstrip().endswith(ends) and signed.signature.count(ends) == 1
    if len(signed.signature) > MAX_SIGNATURE_BYTES or not is_whole:
        raise SignatureFormError(f"the signature of {what} is malformed")
    if kind is not key.kind:
        used, pinned = ("OpenSSH", "OpenPGP") if kind is KeyKind.SSH else ("OpenPGP", "OpenSSH")
        raise UntrustedSignerError(f"{what} is signed with {used}, and the pinned key is of {pinned}")
    if kind is KeyKind.OPENPGP:
        return openpgp(signed.payload, signed.signature, key.text, what)
    return _judge_ssh(signed, key, what)


def _judge_ssh(signed: Signed, key: PinnedKey, what: str) -> str:
    try:
        with tempfile.TemporaryDirectory(prefix="coppice-ssh-") as name:
            allowed, signature = Path(name, "allowed"), Path(name, "signature")
            allowed.write_text(key.text, encoding="ascii")
            signature.write_bytes(signed.signature)
            found = process.run(
                ["ssh-keygen", "-Y", "find-principals", "-f", allowed, "-s", signature],
                timeout_seconds=_TIMEOUT_SECONDS,
            )
            principals = found.text().splitlines()
            if not principals or not _PLAIN_SIGNER.fullmatch(principals[0]):
                _untrusted(what, found.combined)
            process.run(
                ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", principals[0], "-n", "git", "-s", signature],
                timeout_seconds=_TIMEOUT_SECONDS,
                input_bytes=signed.payload,
            )
    except ToolFailedError as problem:
        _untrusted(what, problem.details)
    except OSError as problem:
        raise StorageError(f"the signature of {what} cannot be judged: {problem.strerror}") from problem
    return principals[0]


def _untrusted(what: str, details: str | None) -> NoReturn:
    raise UntrustedSignerError(
        f"{what} has no good signature by the pinned key",
        details=details,
        resolution="If its signer has changed, ask the maintainers, then add the source anew with the new key.",
    )


def _signer(line: str) -> str | None:
    public = _SSH_PUBLIC.fullmatch(line)
    if public is not None:
        return f'pinned-key namespaces="git" {public[1]} {public[2]}'
    return line if _ALLOWED_SIGNER.fullmatch(line) else None


def _no_key(where: str, why: str) -> NoReturn:
    raise DefinitionSourceError(
        f"the key {where} {why}",
        resolution="Name the file of a public key of OpenSSH, of allowed signers, or of an OpenPGP key in ASCII.",
        context={"path": where},
    )
