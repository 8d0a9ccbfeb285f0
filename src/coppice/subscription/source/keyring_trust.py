# SPDX-License-Identifier: Apache-2.0
"""By whom a source is trusted whose documents OpenPGP keys sign: a pinned keyring, or nobody, if somebody says so."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coppice.errors import InputError, KeyringError, UnverifiedSourceError
from coppice.subscription.model import ListWarning, TrustBasis, TrustedBy, WarningKind
from coppice.subscription.openpgp import Keyring
from coppice.subscription.source.options import KEYRING, TRUST, is_plain

if TYPE_CHECKING:
    from coppice.subscription.openpgp import OpenPgpSignature
    from coppice.subscription.source.options import SourceOptions

SIGNER = "signer"
"""Names the fingerprint of the one key of the keyring that must have signed."""
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringTrust:
    """Who must have signed.

    Attributes:
        keyrings: Files of public keys; empty: nobody must.
        signer: Fingerprint of the one primary key that counts; None: any one of the keyring.
        basis: ``transport`` where nobody must have signed; None: somebody must.
    """

    keyrings: tuple[Path, ...]
    signer: str | None
    basis: TrustBasis | None

    @property
    def is_signed(self) -> bool:
        """Whether somebody must have signed."""
        return bool(self.keyrings)

    def require(self, uri: str) -> None:
        """Check that the administrator said whom to believe.

        Raises:
            UnverifiedSourceError: Nobody did; or nobody can be believed there.
        """
        if self.basis is TrustBasis.TRANSPORT and is_plain(uri):
            raise UnverifiedSourceError(
                f"nobody vouches for what is at {uri}: it comes without TLS, so that anybody on the way can answer",
                resolution=f"Use https, or name the publisher's keys: --option {KEYRING}=/path/to/keyring.gpg.",
            )
        if not self.keyrings and self.basis is None:
            raise UnverifiedSourceError(
                f"nobody vouches for what is at {uri}: the subscription names no keyring, and does not say that the "
                "server is believed",
                resolution=f"Name the publisher's keys: --option {KEYRING}=/path/to/keyring.gpg. Or, to believe "
                f"whoever holds the server's name: --option {TRUST}=transport.",
            )

    def keyring(self) -> Keyring:
        """Read the keyring.

        Raises:
            KeyringError: It cannot be used, or lacks the key that must have signed.
        """
        found = Keyring.load(self.keyrings)
        if self.signer is not None and self.signer not in found.signers:
            raise KeyringError(
                f"the keyring does not have the key {self.signer}, which must have signed",
                details=f"it has: {', '.join(found.signers[:20])}",
                resolution=f"Correct the option {SIGNER}, or add the key to the keyring.",
            )
        return found

    def state(self) -> str:
        """Return what changes when a key does; empty where nobody must have signed.

        Raises:
            KeyringError: The keyring cannot be used.
        """
        if not self.keyrings:
            return ""
        return hashlib.sha256(f"{self.keyring().state} {self.signer or ''}".encode("ascii")).hexdigest()

    def by_transport(self, uri: str) -> TrustedBy:
        """Return what stands in the place of a signer where there is none: the server, or the folder."""
        parts = urlsplit(uri)
        holder = parts.path if parts.scheme == "file" else parts.netloc.rpartition("@")[2].lower()
        return TrustedBy(basis=TrustBasis.TRANSPORT, signer=f"{parts.scheme}://{holder}")


def read_trust(options: SourceOptions) -> KeyringTrust:
    """Return who must have signed, of a subscription's options.

    Raises:
        InputError: An option has a value that cannot be, or two contradict each other.
    """
    keyrings = options.texts(KEYRING)
    signer = options.optional_text(SIGNER)
    basis = options.unsigned_basis(TrustBasis.TRANSPORT)
    if any(not Path(each).is_absolute() or "\0" in each for each in keyrings):
        raise InputError(f"the option {KEYRING!r} needs absolute paths: commands run in many directories")
    if keyrings and basis is not None:
        raise InputError(
            f"there is both a keyring and {TRUST} = {basis}: which of the two is it?",
            resolution="With a keyring, everything must be signed by it. Leave the other option out.",
        )
    if signer is not None:
        signer = signer.replace(" ", "").upper().removeprefix("0X")
        if not _FINGERPRINT.fullmatch(signer):
            raise InputError(
                f"the option {SIGNER!r} is no fingerprint",
                resolution="Write all 40 (or 64) hexadecimal digits of the primary key's; key IDs can be forged.",
            )
        if not keyrings:
            raise InputError(f"the option {SIGNER!r} names a key, and no keyring holds it")
    return KeyringTrust(keyrings=tuple(map(Path, keyrings)), signer=signer, basis=basis)


def warnings_of(signature: OpenPgpSignature | None) -> tuple[ListWarning, ...]:
    """Return what is to be said about a good signature: its key may have expired since it was verified first."""
    if signature is None or signature.key_expired_at is None:
        return ()
    expired = f"{signature.key_expired_at:%Y-%m-%d}"
    text = f"the key {signature.signer} expired on {expired}: the next list by it will be refused"
    return (ListWarning(kind=WarningKind.CERTIFICATE_EXPIRING, text=text),)
