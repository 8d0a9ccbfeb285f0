# SPDX-License-Identifier: Apache-2.0
"""Sign with a key on a token (PKCS#11 2.40): a card, a key-shaped device, a hardware security module, or SoftHSM.

The private key never leaves the token. The digest is computed here and the token makes the signature over it, by the
mechanisms that every token has: ``CKM_RSA_PKCS`` and ``CKM_ECDSA``. Each signature has a session of its own, so that a
token that is pulled out and put back in between is no trouble.

A wrong PIN uses up one of a few tries, and a token that has none left is dead; hence one attempt for each signature,
and none at all with the last try, unless a person types the PIN.
"""

from __future__ import annotations

import secrets
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asn1crypto import algos, core
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from coppice.errors import CredentialError, KeyTokenError, UnreadableFileError
from coppice.formats.algorithms import digest_by_name, digest_of, require_strong_key
from coppice.imagelist.key_files import CERTIFICATE_PROBLEMS, read_certificates
from coppice.imagelist.material import KeyMaterial

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.imagelist.material import PassphraseSource
    from coppice.imagelist.token_uri import TokenUri

_MAX_TOKEN_CERTIFICATES = 64
# A login is the whole process's, not a session's: of two threads, one would log the other out.
_ONE_AT_A_TIME = threading.Lock()
_ORDER_BYTES = {"1.2.840.10045.3.1.7": 32, "1.3.132.0.34": 48, "1.3.132.0.35": 66}
"""P-256, P-384, P-521 → length of the curve's order in whole bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A private key on a token.

    Attributes:
        uri: Which one.
        pin: Unlocks it; None: it is typed on the token's own keypad, or none is needed. Never shown.
        typed: Whether a person typed the PIN just now, and may use up the last try.
    """

    uri: TokenUri
    pin: str | None = field(repr=False)
    typed: bool = False

    def sign(self, data: bytes, digest: str) -> bytes:
        """Return the signature over ``data``, whose digest is ``digest``.

        Raises:
            KeyTokenError: The token is not there, has no such key, or failed.
            CredentialError: The PIN is another one.
        """
        hashed = digest_of(digest, data)
        with _session(self) as (library, session):
            key = _private_key(library, session, self.uri)
            return _signature(library, key, hashed, digest, self._pin_for(library, key))

    def certificates(self) -> list[x509.Certificate]:
        """Return the certificates on the token that bear the key's identifier.

        Raises:
            KeyTokenError: The token is not there, has no such key, or failed.
            CredentialError: The PIN is another one.
        """
        with _session(self) as (library, session):
            key = _private_key(library, session, self.uri)
            wanted = {library.Attribute.CLASS: library.ObjectClass.CERTIFICATE, library.Attribute.ID: key.id}
            found = []
            for number, each in enumerate(session.get_objects(wanted)):
                if number == _MAX_TOKEN_CERTIFICATES:
                    break
                try:
                    found.append(x509.load_der_x509_certificate(bytes(each[library.Attribute.VALUE])))
                except CERTIFICATE_PROBLEMS:
                    # A certificate that nobody can read is none; which ones fit is looked at below.
                    continue
            return found

    def _pin_for(self, library: Any, key: Any) -> str | None:
        """Return the PIN for a key that asks for it at every signature, else None."""
        try:
            always = bool(key[library.Attribute.ALWAYS_AUTHENTICATE])
        except library.PKCS11Error:
            always = False
        return self.pin if always else None


def load_token(uri: TokenUri, certificate: Path | None, passphrase: PassphraseSource) -> KeyMaterial:
    """Return a key on a token with its certificate, from a PEM file or from the token; that they fit is tried.

    Raises:
        KeyTokenError: The token cannot be used, or has not the key or the certificate.
        CredentialError: The PIN is missing, or another one.
        UnreadableFileError: The certificate's file cannot be used, or the key is not the certificate's.
    """
    secret = passphrase.fetch(f"the PIN of {uri.place}")
    try:
        pin = None if secret is None else secret.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise CredentialError(f"the PIN of {uri.place} is not UTF-8", resolution="Check its file.") from problem
    key = TokenKey(uri=uri, pin=pin, typed=passphrase.identity.ask_passphrase)
    if certificate is not None:
        own, *chain = read_certificates(certificate)
        if not _fits(key, own):
            raise UnreadableFileError(
                f"{uri} does not belong to the certificate {certificate}",
                resolution="Name the key that the certificate was made for; the endorser's own certificate comes first "
                "in its file.",
                context={"certificate": str(certificate)},
            )
        return KeyMaterial(certificate=own, chain=tuple(chain), signer=key)
    fitting = [one for one in key.certificates() if _fits(key, one)]
    if not fitting:
        raise KeyTokenError(
            f"there is no certificate for {uri} there",
            resolution="Write it to the token under the key's identifier, or name its PEM file with --certificate.",
        )
    return KeyMaterial(certificate=max(fitting, key=lambda one: one.not_valid_after_utc), chain=(), signer=key)


def _fits(key: TokenKey, certificate: x509.Certificate) -> bool:
    """Tell whether the key is the certificate's, by a signature over something that nobody else has."""
    try:
        public = require_strong_key(certificate)
    except CERTIFICATE_PROBLEMS:
        return False
    challenge = b"coppice key check " + secrets.token_bytes(32)
    signature = key.sign(challenge, "sha256")
    hashing = digest_by_name("sha256")
    try:
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, challenge, padding.PKCS1v15(), hashing)
        else:
            public.verify(signature, challenge, ec.ECDSA(hashing))
    except InvalidSignature:
        return False
    return True


def _signature(library: Any, key: Any, hashed: bytes, digest: str, pin: str | None) -> bytes:
    if key.key_type == library.KeyType.RSA:
        info = algos.DigestInfo(
            {"digest_algorithm": {"algorithm": digest, "parameters": core.Null()}, "digest": hashed}
        )
        return bytes(key.sign(info.dump(), mechanism=library.Mechanism.RSA_PKCS, pin=pin))
    if key.key_type != library.KeyType.EC:
        raise KeyTokenError(
            "the key on the token is of a kind that subscribers do not accept",
            resolution="Use RSA of 2048 bits or more, or ECDSA on P-256, P-384 or P-521.",
        )
    # FIPS 186-5, 6.4: of a digest longer than the curve's order the leftmost bits count. Not every token cuts.
    raw = bytes(key.sign(hashed[: _order_bytes(library, key)], mechanism=library.Mechanism.ECDSA, pin=pin))
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def _order_bytes(library: Any, key: Any) -> int:
    try:
        curve = core.ObjectIdentifier.load(bytes(key[library.Attribute.EC_PARAMS])).dotted
    except ValueError:
        curve = ""
    if curve not in _ORDER_BYTES:
        raise KeyTokenError(
            f"the key on the token is on a curve that subscribers do not accept ({curve or 'unnamed'})",
            resolution="Use ECDSA on P-256, P-384 or P-521, or RSA of 2048 bits or more.",
        )
    return _ORDER_BYTES[curve]


@contextmanager
def _session(key: TokenKey) -> Iterator[tuple[Any, Any]]:
    library = _library()
    uri = key.uri
    with _ONE_AT_A_TIME, _token_errors(library, uri):
        token = _token(library, _module(library, uri), uri)
        with token.open(user_pin=_pin_to_use(library, token, key)) as session:
            yield library, session


def _library() -> Any:
    try:
        import pkcs11
    except ImportError as problem:
        raise KeyTokenError(
            "signing with a token needs the Python package python-pkcs11, which is not installed",
            details=str(problem)[:300],
            resolution="Install it: pip install 'coppice[pkcs11]'.",
        ) from problem
    return pkcs11


def _module(library: Any, uri: TokenUri) -> Any:
    if not uri.module.is_file():
        raise KeyTokenError(
            f"there is no PKCS#11 module {uri.module}",
            resolution="Install the token's software, and name its module in module-path (OpenSC: opensc-pkcs11.so, "
            "SoftHSM: libsofthsm2.so).",
            context={"path": str(uri.module)},
        )
    try:
        return library.lib(str(uri.module))
    except library.PKCS11Error as problem:
        raise KeyTokenError(
            f"the PKCS#11 module {uri.module} cannot be used",
            details=str(problem)[:300] or type(problem).__name__,
            resolution="Name the module of the token's software, made for this machine's architecture; see that this "
            "user may use it.",
            context={"path": str(uri.module)},
        ) from problem


def _token(library: Any, module: Any, uri: TokenUri) -> Any:
    present = list(module.get_tokens())
    matching = [token for token in present if _is_meant(token, uri)]
    if len(matching) == 1:
        return matching[0]
    labels = ", ".join(repr(token.label) for token in present if token.flags & library.TokenFlag.TOKEN_INITIALIZED)
    raise KeyTokenError(
        f"{uri.place} is there {len(matching)} times; one is needed" if matching else f"{uri.place} is not there",
        details=f"tokens that are there: {labels or 'none'}",
        resolution="Put the token in, or correct the pkcs11: URI (serial tells tokens of one name apart).",
    )


def _is_meant(token: Any, uri: TokenUri) -> bool:
    serial = token.serial
    facts = (
        (uri.token, token.label),
        (uri.serial, serial.decode("utf-8", "replace").strip("\0 ") if isinstance(serial, bytes) else str(serial)),
        (uri.manufacturer, token.manufacturer_id),
        (uri.model, token.model),
        (uri.slot, token.slot.slot_id),
    )
    return all(wanted is None or wanted == have for wanted, have in facts)


def _pin_to_use(library: Any, token: Any, key: TokenKey) -> Any:
    flags, flag = token.flags, library.TokenFlag
    if flags & flag.USER_PIN_LOCKED:
        raise KeyTokenError(
            f"{key.uri.place} is locked: a wrong PIN was given too often",
            resolution="Have it unlocked with its PUK or by its security officer.",
        )
    if key.pin is None:
        if flags & flag.PROTECTED_AUTHENTICATION_PATH:
            return library.PROTECTED_AUTH
        if flags & flag.LOGIN_REQUIRED:
            raise CredentialError(
                f"{key.uri.place} wants a PIN, and none was given",
                resolution="Say where it is: --passphrase-file, --passphrase-variable or --ask-passphrase.",
            )
        return None
    if flags & flag.USER_PIN_FINAL_TRY and not key.typed:
        raise KeyTokenError(
            f"{key.uri.place} has one try for the PIN left, which is not used up unattended",
            resolution="Find out why the PIN was refused. Then log in once with the right one, for instance by "
            "`coppice endorser edit NAME --set ask_passphrase=yes`.",
        )
    return key.pin


def _private_key(library: Any, session: Any, uri: TokenUri) -> Any:
    wanted: dict[Any, Any] = {library.Attribute.CLASS: library.ObjectClass.PRIVATE_KEY}
    if uri.label is not None:
        wanted[library.Attribute.LABEL] = uri.label
    if uri.identifier is not None:
        wanted[library.Attribute.ID] = uri.identifier
    found = [each for _, each in zip(range(2), session.get_objects(wanted), strict=False)]
    if len(found) == 1:
        return found[0]
    raise KeyTokenError(
        f"{uri} is there more than once" if found else f"{uri} is not there",
        resolution="Correct object and id of the pkcs11: URI; `p11tool --login --list-privkeys` or `pkcs11-tool "
        "--login -O` lists what is on the token.",
    )


@contextmanager
def _token_errors(library: Any, uri: TokenUri) -> Iterator[None]:
    try:
        yield
    except (library.PinIncorrect, library.PinInvalid, library.PinLenRange) as problem:
        raise CredentialError(
            f"{uri.place} refused the PIN",
            details="A token counts wrong PINs and locks itself after a few: find the right one before the next try.",
            resolution="Correct the PIN where the endorser's settings say it is (`coppice endorser show`).",
        ) from problem
    except (library.PinLocked, library.PinExpired) as problem:
        raise KeyTokenError(
            f"{uri.place} is locked, or its PIN has expired",
            resolution="Have it unlocked with its PUK or by its security officer.",
        ) from problem
    except library.UserPinNotInitialized as problem:
        raise KeyTokenError(f"{uri.place} has no PIN yet", resolution="Initialise it with its own tool.") from problem
    except (library.PKCS11Error, UnicodeDecodeError) as problem:
        raise KeyTokenError(
            f"{uri.place} failed: {type(problem).__name__}",
            details=str(problem)[:300] or None,
            resolution="See that the token is in, and that no other program holds it.",
        ) from problem
