# SPDX-License-Identifier: Apache-2.0
"""OpenPGP signatures, judged by ``gpgv`` against a pinned keyring.

``gpgv`` does the cryptography, in a directory of its own that it finds nothing else in: no keyring of a user, no
configuration, no agent. What counts is its status lines alone, and they must tell of one good signature; its exit
status proves nothing (it is 0 for a key that was revoked). Of a clear-signed document only the text that ``gpgv`` gives
is used.

A signature is judged anew whenever its list is recalled, with the keyring as it is then. A key that was revoked since,
or left the keyring, ends the trust in all that it signed. A key that expired since does not: a list has dates of its
own, as it has where a certificate has expired. New documents by an expired key are refused.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from coppice import process
from coppice.errors import (
    DocumentError,
    ExpiredListError,
    KeyringError,
    SignatureFormError,
    SignerCountError,
    SignerExpiredError,
    SignerRevokedError,
    StorageError,
    TamperedListError,
    ToolFailedError,
    UnsignedListError,
    UntrustedSignerError,
    WeakSignatureError,
    WrongSignerError,
)
from coppice.formats.cleartext import covered_lines, is_cleartext, is_same_text, signature_block
from coppice.formats.limits import MIB
from coppice.formats.openpgp import read_detached_signature, read_keyring
from coppice.model.checksum import Checksum
from coppice.subscription.gpgv_status import Verdict, read_status
from coppice.subscription.model import TrustBasis, TrustedBy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from coppice.formats.openpgp import PublicKey
    from coppice.subscription.gpgv_status import SignatureStatus

KEYRING_LIMIT_BYTES = 4 * MIB
_TIMEOUT_SECONDS = 60
_STATUS_LIMIT_BYTES = MIB
_SIGNATURES_LIMIT = 8
_STRONG_DIGESTS = frozenset({8, 9, 10, 12, 14})
"""SHA2-256, -384, -512, SHA3-256, -512 (RFC 9580, 9.5)."""
_BINARY_DOCUMENT, _TEXT_DOCUMENT = "00", "01"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPgpSignature:
    """A good signature.

    Attributes:
        signer: Fingerprint of the primary key.
        key: Fingerprint of the key that signed: the primary one, or a subkey of it.
        signed_at: As the signature says.
        expires: When the signature says that it ends; None: never.
        key_expired_at: When the key expired; None: it did not.
        trusted_by: The same, as lists have it.
    """

    signer: str
    key: str
    signed_at: datetime
    expires: datetime | None
    key_expired_at: datetime | None
    trusted_by: TrustedBy


class Keyring:
    """Public keys that are trusted.

    Args:
        binary: Packets.
        keys: What they hold.
        where: For messages.
    """

    def __init__(self, binary: bytes, keys: Sequence[PublicKey], where: str) -> None:
        self._binary = binary
        self._keys = {key.fingerprint: key for key in keys}
        self._where = where

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Keyring:
        """Read keyrings, ASCII-armoured or binary, as one.

        Raises:
            KeyringError: One is missing, unreadable, too large, holds no key or a secret one.
        """
        binary = bytearray()
        keys: list[PublicKey] = []
        for path in paths:
            data = _read(path)
            if len(data) > KEYRING_LIMIT_BYTES:
                raise _unusable(path, f"is longer than {KEYRING_LIMIT_BYTES} bytes")
            try:
                packets, found = read_keyring(data)
            except DocumentError as problem:
                raise _unusable(path, f"cannot be used: {problem.message}", problem.resolution) from problem
            binary += packets
            keys.extend(found)
        if not keys:
            raise KeyringError("no keyring is named", resolution="Name the file with the publisher's public keys.")
        return cls(bytes(binary), keys, ", ".join(map(str, paths)))

    @property
    def state(self) -> str:
        """What changes when a key does: 64 hexadecimal digits."""
        return hashlib.sha256(self._binary).hexdigest()

    @property
    def signers(self) -> tuple[str, ...]:
        """Fingerprints of the primary keys, in the order of the keyring."""
        return tuple(dict.fromkeys(key.primary for key in self._keys.values()))

    def verify_cleartext(
        self, document: bytes, *, what: str, signer: str | None = None, first_verified_at: datetime | None = None
    ) -> tuple[bytes, OpenPgpSignature]:
        """Return the text that a clear-signed document's signature covers, and the signature.

        Args:
            document: The whole, with its marks.
            what: Names it in errors.
            signer: Fingerprint of the primary key that must have signed; None: any one of the keyring.
            first_verified_at: Only for what was verified before: a key may have expired since.

        Raises:
            TrustError: It is not signed as it must be; the class says why.
            ToolMissingError: ``gpgv`` is not installed.
        """
        text, signatures = self._run_cleartext(document, what)
        good = self._judge(signatures, what, signer, first_verified_at, _TEXT_DOCUMENT)
        self._refuse_ambiguous(document, text, what)
        return text, good

    def verify_index(self, document: bytes, *, what: str) -> tuple[bytes, tuple[str, ...]]:
        """Return the text of a package repository's clear-signed index, and the primary keys that signed it well.

        One good signature is enough, as package managers have it: archives sign with their old and their new keys at
        once. A signature by a key that has expired, was revoked or is unknown says nothing; one that does not hold
        refuses the whole.

        Args:
            document: The whole, with its marks.
            what: Names it in errors.

        Raises:
            TrustError: It is not signed as it must be; the class says why.
            ToolMissingError: ``gpgv`` is not installed.
        """
        text, signatures = self._run_cleartext(document, what)
        if not 1 <= len(signatures) <= _SIGNATURES_LIMIT:
            raise SignerCountError(f"{what} has {len(signatures)} signatures; 1 to {_SIGNATURES_LIMIT} are accepted")
        for each in signatures:
            if each.verdict is Verdict.BAD:
                self._refuse_bad(each, what, None)
        good = [each for each in signatures if each.verdict is Verdict.GOOD]
        if not good:
            for each in signatures:
                self._refuse_bad(each, what, None)
            self._refuse_unknown(signatures, what)
        accepted: list[str] = []
        weak: WeakSignatureError | None = None
        for each in good:
            try:
                accepted.append(self._accepted(each, what, _TEXT_DOCUMENT).signer)
            except WeakSignatureError as problem:
                weak = problem
        if not accepted and weak is not None:
            raise weak
        self._refuse_ambiguous(document, text, what)
        return text, tuple(accepted)

    def _run_cleartext(self, document: bytes, what: str) -> tuple[bytes, tuple[SignatureStatus, ...]]:
        if not is_cleartext(document):
            raise UnsignedListError(f"{what} is not signed: it is no clear-signed OpenPGP document")
        try:
            covered_lines(document)
            read_detached_signature(signature_block(document))
        except DocumentError as problem:
            raise SignatureFormError(f"{what} is signed in a form that is not accepted: {problem.message}") from problem
        return self._run(document, None, what)

    @staticmethod
    def _refuse_ambiguous(document: bytes, text: bytes, what: str) -> None:
        if not is_same_text(covered_lines(document), text):
            raise SignatureFormError(f"{what} can be read in two ways: gpgv takes another text for what is signed")

    def verify_detached(
        self,
        document: bytes,
        signature: bytes,
        *,
        what: str,
        signer: str | None = None,
        first_verified_at: datetime | None = None,
    ) -> OpenPgpSignature:
        """Return the signature that lies beside a document; the arguments are those of `verify_cleartext`.

        Raises:
            TrustError: It is not signed as it must be; the class says why.
            ToolMissingError: ``gpgv`` is not installed.
        """
        try:
            binary = read_detached_signature(signature)
        except DocumentError as problem:
            raise SignatureFormError(f"the signature of {what} cannot be used: {problem.message}") from problem
        text, signatures = self._run(binary, document, what)
        if text:
            raise SignatureFormError(f"the signature of {what} brings a text of its own")
        return self._judge(signatures, what, signer, first_verified_at, _BINARY_DOCUMENT)

    def _run(self, signed: bytes, document: bytes | None, what: str) -> tuple[bytes, tuple[SignatureStatus, ...]]:
        """Return the text that ``gpgv`` gives, and what it says of each signature."""
        try:
            with tempfile.TemporaryDirectory(prefix="coppice-gpgv-") as name:
                place = Path(name)
                (place / "keyring.gpg").write_bytes(self._binary)
                (place / "signed").write_bytes(signed)
                argv: list[str | Path] = ["gpgv", "--homedir", place, "--keyring", place / "keyring.gpg"]
                argv += ["--status-fd", "1", "--output", place / "text", place / "signed"]
                if document is not None:
                    (place / "document").write_bytes(document)
                    argv.append(place / "document")
                status = self._status(argv, place, len(signed))
                text = (place / "text").read_bytes() if (place / "text").exists() else b""
        except ToolFailedError as problem:
            raise SignatureFormError(f"gpgv failed on {what}", details=problem.details) from problem
        except OSError as problem:
            raise StorageError(f"a directory for gpgv cannot be made or used: {problem.strerror}") from problem
        return text, read_status(status, what)

    @staticmethod
    def _status(argv: Sequence[str | Path], place: Path, size_bytes: int) -> bytes:
        done = process.run(
            argv,
            timeout_seconds=_TIMEOUT_SECONDS,
            cwd=place,
            env={"HOME": str(place), "GNUPGHOME": str(place)},
            ok=(0, 1, 2),
            limits=process.Limits(
                # A compressed document may not unfold to more than it is.
                file_size_bytes=size_bytes + 64 * 1024,
                address_space_bytes=1024 * MIB,
                cpu_seconds=_TIMEOUT_SECONDS,
            ),
        )
        if len(done.stdout) > _STATUS_LIMIT_BYTES:
            raise SignatureFormError("gpgv says more of a signature than anybody would read")
        return done.stdout

    def _judge(
        self,
        signatures: Sequence[SignatureStatus],
        what: str,
        signer: str | None,
        first_verified_at: datetime | None,
        wanted_class: str,
    ) -> OpenPgpSignature:
        """Return the one good signature that counts.

        What an unknown key signed says nothing, and is passed over; so a publisher can change keys by signing with
        both. Everything else must be good.
        """
        if not 1 <= len(signatures) <= _SIGNATURES_LIMIT:
            raise SignerCountError(f"{what} has {len(signatures)} signatures; 1 to {_SIGNATURES_LIMIT} are accepted")
        for each in signatures:
            self._refuse_bad(each, what, first_verified_at)
        good = [each for each in signatures if each.verdict in {Verdict.GOOD, Verdict.KEY_EXPIRED}]
        if not good:
            self._refuse_unknown(signatures, what)
        counted = [each for each in good if signer is None or each.primary == signer]
        if not counted:
            raise WrongSignerError(
                f"{what} is signed by {good[0].primary}, and not by the key that this subscription names",
                details=f"named  {signer}\nsigned {', '.join(each.primary for each in good)}",
                resolution="If the publisher has changed keys, and confirms it, change the option signer.",
            )
        if len(counted) > 1:
            raise SignerCountError(
                f"{what} has {len(counted)} good signatures; which one counts is not said",
                details="\n".join(each.primary for each in counted),
                resolution="Name the one key with the option signer, or keep only that one in the keyring.",
            )
        return self._accepted(counted[0], what, wanted_class)

    def _refuse_bad(self, each: SignatureStatus, what: str, first_verified_at: datetime | None) -> None:
        if each.verdict is Verdict.BAD:
            raise TamperedListError(f"{what} is not what {each.key} signed: the signature does not hold")
        if each.verdict is Verdict.REVOKED:
            raise SignerRevokedError(
                f"{what} is signed by {each.primary}, which is revoked",
                resolution="Get the publisher's new key from somewhere safe, and put it into the keyring instead.",
            )
        if each.verdict is Verdict.EXPIRED:
            raise ExpiredListError(f"the signature of {what} has expired")
        if each.verdict is Verdict.UNREADABLE:
            if each.digest not in _STRONG_DIGESTS:
                raise WeakSignatureError(f"{what} is signed with a digest that is not accepted (OpenPGP {each.digest})")
            raise SignatureFormError(f"a signature of {what} cannot be judged by gpgv (OpenPGP {each.algorithm})")
        if each.verdict is Verdict.KEY_EXPIRED:
            expired = each.key_expired_at
            was_valid = first_verified_at is not None and expired is not None and first_verified_at < expired
            if not was_valid or each.signed_at is None or expired is None or each.signed_at > expired:
                when = "" if expired is None else f" on {expired:%Y-%m-%d %H:%M:%S} UTC"
                raise SignerExpiredError(
                    f"{what} is signed by {each.primary}, which expired{when}",
                    resolution="Publishers often prolong a key: get its present form, and put it into the keyring.",
                )

    def _refuse_unknown(self, signatures: Sequence[SignatureStatus], what: str) -> NoReturn:
        named = ", ".join(each.key for each in signatures)
        raise UntrustedSignerError(
            f"{what} is signed by {named}, which the keyring does not have",
            details=f"keyring: {self._where}\nwith: {', '.join(self.signers[:20])}",
            resolution="If the publisher has changed keys, get the new one from somewhere safe, and add it there.",
        )

    def _accepted(self, each: SignatureStatus, what: str, wanted_class: str) -> OpenPgpSignature:
        key, primary = self._keys.get(each.key), self._keys.get(each.primary)
        if key is None or primary is None or key.primary != primary.fingerprint or each.signed_at is None:
            raise SignatureFormError(f"gpgv tells of a key of {what} that the keyring does not have: {each.key}")
        if each.signature_class != wanted_class:
            raise SignatureFormError(f"the signature of {what} is of class {each.signature_class}, not {wanted_class}")
        if each.digest not in _STRONG_DIGESTS:
            raise WeakSignatureError(
                f"{what} is signed with a digest that is not accepted (OpenPGP {each.digest})",
                resolution="The publisher must sign with SHA-256 or better.",
            )
        if not (key.is_strong and primary.is_strong):
            weak = primary if key.is_strong else key
            raise WeakSignatureError(
                f"{what} is signed by a key that is too weak: {weak.algorithm} {weak.bits or ''}".rstrip(),
                details=f"key {weak.fingerprint}",
                resolution="RSA from 2048 bits on, Ed25519 and the curves of NIST and Brainpool are accepted.",
            )
        return OpenPgpSignature(
            signer=each.primary,
            key=each.key,
            signed_at=each.signed_at,
            expires=each.expires,
            key_expired_at=each.key_expired_at,
            trusted_by=TrustedBy(
                basis=TrustBasis.OPENPGP, signer=each.primary, fingerprint=Checksum("sha256", primary.sha256)
            ),
        )


def _read(path: Path) -> bytes:
    try:
        # Not to wait for a writer, should it be a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise _unusable(path, "is no regular file")
            return stream.read(KEYRING_LIMIT_BYTES + 1)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise _unusable(path, f"cannot be read: {reason}") from problem


def _unusable(path: Path, reason: str, resolution: str | None = None) -> KeyringError:
    return KeyringError(
        f"the keyring {path} {reason}",
        resolution=resolution or "Name a file with the publisher's public keys, as gpg --export writes it.",
        context={"path": str(path)},
    )
