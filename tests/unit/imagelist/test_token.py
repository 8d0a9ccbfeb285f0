# SPDX-License-Identifier: Apache-2.0
"""Tokens that misbehave as no software token does: locked, pulled out, doubled, asking at every signature."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import Enum, IntFlag
from typing import TYPE_CHECKING, Any, Self

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from pkcs11.exceptions import (
    DeviceRemoved,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    UserPinNotInitialized,
)

from coppice.catalogue.model import EndorserIdentity, KeyKind
from coppice.errors import CoppiceError, CredentialError, KeyTokenError, UnreadableFileError, WeakSignatureError
from coppice.formats.cms import open_message
from coppice.formats.cms_sign import sign
from coppice.imagelist import token as subject
from coppice.imagelist.keys import SigningIdentity, load_identity
from coppice.testing.authority import Authority, Identity, KeyType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit
PIN = "4711"
CURVES = {"secp256r1": "1.2.840.10045.3.1.7", "secp384r1": "1.3.132.0.34", "secp521r1": "1.3.132.0.35"}


class Attribute(Enum):
    CLASS, LABEL, ID, VALUE, EC_PARAMS, ALWAYS_AUTHENTICATE = range(6)


class ObjectClass(Enum):
    PRIVATE_KEY, CERTIFICATE = range(2)


class FakeKeyType(Enum):
    RSA, EC, DSA = range(3)


class Mechanism(Enum):
    RSA_PKCS, ECDSA = range(2)


class TokenFlag(IntFlag):
    LOGIN_REQUIRED = 4
    PROTECTED_AUTHENTICATION_PATH = 0x100
    TOKEN_INITIALIZED = 0x400
    USER_PIN_FINAL_TRY = 0x20000
    USER_PIN_LOCKED = 0x40000


USUAL = TokenFlag.LOGIN_REQUIRED | TokenFlag.TOKEN_INITIALIZED


@dataclass
class FakeObject:
    attributes: dict[Attribute, Any]
    key: Any = None
    pins: list[str | None] = field(default_factory=list)
    signed: list[bytes] = field(default_factory=list)

    def __getitem__(self, attribute: Attribute) -> Any:
        if attribute not in self.attributes:
            raise PKCS11Error(attribute)
        return self.attributes[attribute]

    @property
    def id(self) -> bytes:
        return bytes(self.attributes[Attribute.ID])

    @property
    def key_type(self) -> FakeKeyType:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return FakeKeyType.RSA
        return FakeKeyType.EC if isinstance(self.key, ec.EllipticCurvePrivateKey) else FakeKeyType.DSA

    def sign(self, data: bytes, *, mechanism: Mechanism, pin: str | None) -> bytes:
        self.pins.append(pin)
        self.signed.append(data)
        if mechanism is Mechanism.RSA_PKCS:
            # What a token does: it pads what it is given. Here the digest is cut out again to do the same.
            size = {51: 32, 67: 48, 83: 64}[len(data)]
            hashing = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}[size]
            made: bytes = self.key.sign(data[-size:], padding.PKCS1v15(), Prehashed(hashing))
            return made
        length = (self.key.curve.key_size + 7) // 8
        assert len(data) <= length, "a token that does not cut digests refuses this"
        hashing = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}[len(data)]
        first, second = decode_dss_signature(self.key.sign(data, ec.ECDSA(Prehashed(hashing))))
        return first.to_bytes(length, "big") + second.to_bytes(length, "big")


@dataclass
class FakeSlot:
    slot_id: int = 1


@dataclass
class FakeToken:
    objects: list[FakeObject]
    label: str = "card"
    serial: bytes = b"0001"
    manufacturer_id: str = "Maker"
    model: str = "Model"
    flags: TokenFlag = USUAL
    slot: FakeSlot = field(default_factory=FakeSlot)
    failure: Exception | None = None
    pins: list[Any] = field(default_factory=list)
    closed: int = 0

    def open(self, *, user_pin: Any) -> FakeToken:
        self.pins.append(user_pin)
        if self.failure is not None:
            raise self.failure
        if user_pin not in {PIN, "on the keypad", None}:
            raise PinIncorrect
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    def get_objects(self, wanted: dict[Attribute, Any]) -> Iterator[FakeObject]:
        for each in self.objects:
            if all(each.attributes.get(name) == value for name, value in wanted.items()):
                yield each


class FakeLibrary:
    """What the package pkcs11 offers, as far as it is used."""

    PKCS11Error, PinIncorrect, PinInvalid, PinLenRange = PKCS11Error, PinIncorrect, PinInvalid, PinLenRange
    PinLocked, PinExpired, UserPinNotInitialized = PinLocked, PinExpired, UserPinNotInitialized
    Attribute, ObjectClass, KeyType, Mechanism, TokenFlag = Attribute, ObjectClass, FakeKeyType, Mechanism, TokenFlag
    PROTECTED_AUTH = "on the keypad"

    def __init__(self, *tokens: FakeToken) -> None:
        self.tokens = tokens

    def lib(self, path: str) -> FakeLibrary:
        return self

    def get_tokens(self) -> Iterator[FakeToken]:
        return iter(self.tokens)


def private(identity: Identity, *, label: str = "jane", **more: Any) -> FakeObject:
    attributes: dict[Attribute, Any] = {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.LABEL: label,
        Attribute.ID: b"\x01",
        **{Attribute[name]: value for name, value in more.items()},
    }
    if isinstance(identity.key, ec.EllipticCurvePrivateKey):
        from asn1crypto.core import ObjectIdentifier

        attributes.setdefault(Attribute.EC_PARAMS, ObjectIdentifier(CURVES[identity.key.curve.name]).dump())
    return FakeObject(attributes, identity.key)


def certificate(identity: Identity) -> FakeObject:
    return FakeObject(
        {
            Attribute.CLASS: ObjectClass.CERTIFICATE,
            Attribute.ID: b"\x01",
            Attribute.VALUE: identity.certificate.public_bytes(serialization.Encoding.DER),
        }
    )


@pytest.fixture
def authority() -> Authority:
    return Authority.create("Example CA")


@pytest.fixture
def jane(authority: Authority) -> Identity:
    return authority.issue("Jane Doe")


def load(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *tokens: FakeToken,
    uri: str = "token=card;object=jane",
    pin: str | None = PIN,
    typed: bool = False,
    certificate: Path | None = None,
) -> SigningIdentity:
    monkeypatch.setattr(subject, "_library", lambda: FakeLibrary(*tokens))
    module = tmp_path / "module.so"
    module.touch()
    identity = EndorserIdentity(
        name="jane",
        kind=KeyKind.PKCS11,
        certificate=certificate,
        key=f"pkcs11:{uri}?module-path={module}",
        passphrase_variable="JANE_PIN" if pin is not None and not typed else None,
        ask_passphrase=typed,
        creator="Jane Doe",
        email="jane@example.org",
    )
    return load_identity(identity, ask=lambda _: pin or "", environ={"JANE_PIN": pin or ""})


@pytest.mark.parametrize("kind", [KeyType.RSA_2048, KeyType.P256, KeyType.P384])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_only_what_a_plain_token_can_do_is_asked_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: Authority, kind: KeyType, digest: str
) -> None:
    identity = authority.issue("Jane Doe", key_type=kind)
    token = FakeToken([private(identity), certificate(identity)])
    loaded = load(monkeypatch, tmp_path, token)
    message = sign(b"{}", certificate=loaded.certificate, key=loaded.signer, digest=digest)
    assert open_message(message).digest == digest
    assert token.closed == len(token.pins), "every session is closed"
    assert set(token.pins) == {PIN}
    assert PIN not in repr(loaded.signer)


def test_a_key_that_asks_at_every_signature_gets_its_pin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jane: Identity
) -> None:
    key = private(jane, ALWAYS_AUTHENTICATE=True)
    load(monkeypatch, tmp_path, FakeToken([key, certificate(jane)]))
    assert key.pins == [PIN]
    key = private(jane, ALWAYS_AUTHENTICATE=False)
    load(monkeypatch, tmp_path, FakeToken([key, certificate(jane)]))
    assert key.pins == [None]


def test_a_refused_pin_is_given_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jane: Identity) -> None:
    token = FakeToken([private(jane), certificate(jane)])
    with pytest.raises(CredentialError, match="refused the PIN"):
        load(monkeypatch, tmp_path, token, pin="0815")
    assert token.pins == ["0815"]


def test_the_last_try_is_for_a_person_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jane: Identity) -> None:
    token = FakeToken([private(jane), certificate(jane)], flags=USUAL | TokenFlag.USER_PIN_FINAL_TRY)
    with pytest.raises(KeyTokenError, match="one try for the PIN left"):
        load(monkeypatch, tmp_path, token)
    assert token.pins == []
    load(monkeypatch, tmp_path, token, typed=True)
    assert set(token.pins) == {PIN}


def test_a_keypad_needs_no_pin_from_here_and_a_free_token_none_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jane: Identity
) -> None:
    keypad = FakeToken([private(jane), certificate(jane)], flags=USUAL | TokenFlag.PROTECTED_AUTHENTICATION_PATH)
    load(monkeypatch, tmp_path, keypad, pin=None)
    assert set(keypad.pins) == {"on the keypad"}
    free = FakeToken([private(jane), certificate(jane)], flags=TokenFlag.TOKEN_INITIALIZED)
    load(monkeypatch, tmp_path, free, pin=None)
    assert set(free.pins) == {None}
    with pytest.raises(CredentialError, match="wants a PIN"):
        load(monkeypatch, tmp_path, FakeToken([private(jane)]), pin=None)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (PinLocked(), "locked"),
        (PinExpired(), "expired"),
        (UserPinNotInitialized(), "no PIN yet"),
        (DeviceRemoved(), "DeviceRemoved"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "UnicodeDecodeError"),
    ],
)
def test_what_a_token_fails_with_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jane: Identity, failure: Exception, said: str
) -> None:
    with pytest.raises(KeyTokenError, match=said):
        load(monkeypatch, tmp_path, FakeToken([private(jane)], failure=failure))


def test_a_locked_token_is_not_even_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jane: Identity) -> None:
    token = FakeToken([private(jane)], flags=USUAL | TokenFlag.USER_PIN_LOCKED)
    with pytest.raises(KeyTokenError, match="is locked"):
        load(monkeypatch, tmp_path, token)
    assert token.pins == []


def test_two_tokens_of_one_name_are_told_apart_or_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jane: Identity
) -> None:
    objects = [private(jane), certificate(jane)]
    tokens = (FakeToken(objects, slot=FakeSlot(1)), FakeToken(objects, serial=b"0002", slot=FakeSlot(2)))
    with pytest.raises(KeyTokenError, match="is there 2 times"):
        load(monkeypatch, tmp_path, *tokens)
    for uri in ("serial=0002;object=jane", "token=card;slot-id=1;id=%01", "token=card;serial=0001;model=Model;id=%01"):
        assert load(monkeypatch, tmp_path, *tokens, uri=uri).endorser.subject == jane.subject
    with pytest.raises(KeyTokenError, match="not there"):
        load(monkeypatch, tmp_path, *tokens, uri="token=card;manufacturer=Other;object=jane")


def test_two_keys_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jane: Identity) -> None:
    with pytest.raises(KeyTokenError, match="more than once"):
        load(monkeypatch, tmp_path, FakeToken([private(jane), private(jane), certificate(jane)]))
    with pytest.raises(KeyTokenError, match="'jane' on the token 'card' is not there"):
        load(monkeypatch, tmp_path, FakeToken([private(jane, label="joe")]))


def test_of_the_certificates_on_the_token_the_newest_that_fits_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: Authority, jane: Identity
) -> None:
    from datetime import UTC, datetime, timedelta

    longer = authority.issue("Jane Doe", key=jane.key, not_after=datetime.now(UTC) + timedelta(days=900))
    garbage = certificate(jane)
    garbage.attributes[Attribute.VALUE] = b"no certificate"
    others = [certificate(authority.issue("Jane Doe")), garbage, certificate(longer), certificate(jane)]
    loaded = load(monkeypatch, tmp_path, FakeToken([private(jane), *others]))
    assert loaded.certificate == longer.certificate
    with pytest.raises(KeyTokenError, match="no certificate"):
        load(monkeypatch, tmp_path, FakeToken([private(jane), *others[:2]]))


def test_kinds_of_keys_that_subscribers_refuse_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: Authority, jane: Identity
) -> None:
    odd = private(jane)
    odd.key = object()
    with pytest.raises(KeyTokenError, match="of a kind"):
        load(monkeypatch, tmp_path, FakeToken([odd, certificate(jane)]))
    for curve in (b"\x06\x05\x2b\x81\x04\x00\x0a", b"garbage"):
        with pytest.raises(KeyTokenError, match="on a curve"):
            load(monkeypatch, tmp_path, FakeToken([private(jane, EC_PARAMS=curve), certificate(jane)]))
    weak = authority.issue("Jane Doe", key_type=KeyType.RSA_1024)
    with pytest.raises(WeakSignatureError):
        load(monkeypatch, tmp_path, FakeToken([private(weak), certificate(weak)]))


def test_the_certificate_in_a_file_must_be_the_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: Authority, jane: Identity
) -> None:
    issued = authority.issue_authority("Sub CA").issue("Jane Doe", key=jane.key)
    path, _ = issued.write_to(tmp_path, "jane")
    loaded = load(monkeypatch, tmp_path, FakeToken([private(jane)]), certificate=path)
    assert loaded.chain == issued.chain
    path, _ = authority.issue("Jane Doe").write_to(tmp_path, "jane")
    with pytest.raises(UnreadableFileError, match="does not belong"):
        load(monkeypatch, tmp_path, FakeToken([private(jane)]), certificate=path)


def test_without_the_python_package_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jane: Identity
) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    certificate_file, _ = jane.write_to(tmp_path, "jane")
    identity = EndorserIdentity(
        name="jane",
        kind=KeyKind.PKCS11,
        certificate=certificate_file,
        key="pkcs11:token=card;object=jane?module-path=/usr/lib/module.so",
        creator="Jane Doe",
        email="jane@example.org",
    )
    with pytest.raises(KeyTokenError) as caught:
        load_identity(identity)
    assert "coppice[pkcs11]" in str(caught.value.resolution)


def test_a_pin_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jane: Identity) -> None:
    with pytest.raises(CredentialError, match="not UTF-8") as caught:
        load(monkeypatch, tmp_path, FakeToken([private(jane)]), pin="\udcff\udcfe")
    assert isinstance(caught.value, CoppiceError)
