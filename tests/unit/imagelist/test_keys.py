# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519
from cryptography.hazmat.primitives.serialization import pkcs12

from coppice.catalogue.model import EndorserIdentity, KeyKind
from coppice.errors import (
    CoppiceError,
    CredentialError,
    EndorserMismatchError,
    SignerExpiredError,
    SignerUsageError,
    UnreadableFileError,
    WeakSignatureError,
)
from coppice.formats.cms import open_message
from coppice.formats.cms_sign import sign
from coppice.imagelist.keys import load_identity, require_usable
from coppice.imagelist.material import MAX_KEY_FILE_BYTES
from coppice.model.endorser import DistinguishedName
from coppice.testing.authority import Authority, Identity, KeyType

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
PEM = serialization.Encoding.PEM
PLAIN = serialization.NoEncryption()
SECRET = b"correct horse"
VARIABLE = "PHRASE"
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("Example CA")


@pytest.fixture(scope="module")
def jane(authority: Authority) -> Identity:
    return authority.issue("Jane Doe")


def kept(identity: Identity, directory: Path, **changes: Any) -> EndorserIdentity:
    certificate, key = identity.write_to(directory, "jane")
    return replace(
        EndorserIdentity(name="jane", certificate=certificate, key=key, creator="Jane Doe", email="jane@example.org"),
        **changes,
    )


def with_key(
    kept: EndorserIdentity, key: Any, form: serialization.PrivateFormat, secret: bytes | None = SECRET
) -> EndorserIdentity:
    path = kept.certificate.parent / "other.key"  # type: ignore[union-attr]
    encryption = serialization.BestAvailableEncryption(secret) if secret else PLAIN
    path.write_bytes(key.private_bytes(PEM, form, encryption))
    path.chmod(0o600)
    return replace(kept, key=path)


def bundle(directory: Path, identity: Identity, secret: bytes | None = SECRET, **changes: Any) -> EndorserIdentity:
    path = directory / "jane.p12"
    encryption = serialization.BestAvailableEncryption(secret) if secret else PLAIN
    chain = list(identity.chain) or None
    path.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"jane",
            identity.key,
            identity.certificate,
            chain,  # type: ignore[arg-type]
            encryption,
        )
    )
    path.chmod(0o600)
    return EndorserIdentity(
        name="jane",
        kind=KeyKind.PKCS12,
        certificate=None,
        key=path,
        creator="Jane Doe",
        email="jane@example.org",
        **changes,
    )


def phrase(directory: Path, secret: bytes = SECRET) -> Path:
    path = directory / "phrase"
    path.write_bytes(secret + b"\nwhat follows is not read\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.RSA_2048])
def test_an_encrypted_key_opens_with_its_passphrase_only(
    authority: Authority, tmp_path: Path, form: serialization.PrivateFormat, kind: KeyType
) -> None:
    identity = authority.issue("Jane Doe", key_type=kind)
    files = with_key(kept(identity, tmp_path), identity.key, form)
    with pytest.raises(UnreadableFileError, match="no passphrase was given"):
        load_identity(files)
    with pytest.raises(CredentialError, match="another one"):
        load_identity(replace(files, passphrase_file=phrase(tmp_path, b"wrong")))
    loaded = load_identity(replace(files, passphrase_file=phrase(tmp_path)))
    message = sign(b"{}", certificate=loaded.certificate, key=loaded.signer)
    assert open_message(message).signer_certificate == identity.certificate


def test_a_passphrase_comes_from_a_file_a_variable_or_a_person(jane: Identity, tmp_path: Path) -> None:
    files = with_key(kept(jane, tmp_path), jane.key, serialization.PrivateFormat.PKCS8)
    asked: list[str] = []

    def ask(what: str) -> str:
        asked.append(what)
        return SECRET.decode()

    environ = {VARIABLE: SECRET.decode()}
    load_identity(replace(files, passphrase_file=phrase(tmp_path)))
    load_identity(replace(files, passphrase_variable=VARIABLE), environ=environ)
    load_identity(replace(files, ask_passphrase=True), ask=ask)
    assert asked == [f"the passphrase of {files.key}"]


@pytest.mark.parametrize(
    ("changes", "environ", "said"),
    [
        ({"passphrase_variable": "PHRASE"}, {}, "PHRASE is not set, or empty"),
        ({"passphrase_variable": "PHRASE"}, {"PHRASE": ""}, "PHRASE is not set, or empty"),
        ({"ask_passphrase": True}, {}, "no terminal"),
    ],
)
def test_a_passphrase_that_is_nowhere_is_said_to_be_missing(
    jane: Identity, tmp_path: Path, changes: dict[str, Any], environ: dict[str, str], said: str
) -> None:
    files = with_key(kept(jane, tmp_path), jane.key, serialization.PrivateFormat.PKCS8)
    with pytest.raises(CredentialError, match=said):
        load_identity(replace(files, **changes), environ=environ)


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\nsecond\n"])
def test_an_empty_first_line_is_no_passphrase(jane: Identity, tmp_path: Path, content: bytes) -> None:
    files = with_key(kept(jane, tmp_path), jane.key, serialization.PrivateFormat.PKCS8)
    path = tmp_path / "phrase"
    path.write_bytes(content)
    with pytest.raises(CredentialError, match="missing"):
        load_identity(replace(files, passphrase_file=path))
    with pytest.raises(CredentialError, match="typed is empty"):
        load_identity(replace(files, ask_passphrase=True), ask=lambda _: "")


def test_a_passphrase_for_a_plain_key_is_an_error(jane: Identity, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="not encrypted"):
        load_identity(kept(jane, tmp_path, passphrase_file=phrase(tmp_path)))


def test_a_passphrase_shows_nowhere(jane: Identity, tmp_path: Path) -> None:
    files = with_key(kept(jane, tmp_path), jane.key, serialization.PrivateFormat.PKCS8)
    environ = {VARIABLE: "not the one"}
    with pytest.raises(CredentialError) as caught:
        load_identity(replace(files, passphrase_variable=VARIABLE), environ=environ)
    assert "not the one" not in str(caught.value.as_dict())
    loaded = load_identity(replace(files, passphrase_file=phrase(tmp_path)))
    assert SECRET.decode() not in repr(loaded)
    assert "key=" not in repr(loaded.signer)


def test_files_that_are_not_what_they_should_be_are_named(authority: Authority, jane: Identity, tmp_path: Path) -> None:
    files = kept(jane, tmp_path)
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        load_identity(replace(files, key=tmp_path / "missing"))
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        load_identity(replace(files, key=tmp_path))
    with pytest.raises(UnreadableFileError, match="no PEM certificate"):
        load_identity(replace(files, certificate=files.key))
    with pytest.raises(UnreadableFileError, match="no usable PEM private key"):
        load_identity(replace(files, key=files.certificate))
    with pytest.raises(UnreadableFileError, match="no certificate is named"):
        load_identity(replace(files, certificate=None))
    _, other = authority.issue("Other").write_to(tmp_path, "other")
    with pytest.raises(UnreadableFileError, match="does not belong"):
        load_identity(replace(files, key=other))
    huge = tmp_path / "huge"
    huge.write_bytes(b"-" * (MAX_KEY_FILE_BYTES + 1))
    for changes in ({"key": huge}, {"certificate": huge}, {"key": huge, "kind": KeyKind.PKCS12}):
        with pytest.raises(UnreadableFileError, match="longer than"):
            load_identity(replace(files, **changes))


def test_one_file_may_hold_certificate_and_key(jane: Identity, tmp_path: Path) -> None:
    files = kept(jane, tmp_path)
    together = tmp_path / "together.pem"
    together.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())  # type: ignore[union-attr]
    assert load_identity(replace(files, certificate=together, key=together)).endorser.subject == jane.subject


def test_what_others_can_read_is_warned_of(jane: Identity, tmp_path: Path) -> None:
    files = with_key(kept(jane, tmp_path), jane.key, serialization.PrivateFormat.PKCS8)
    files = replace(files, passphrase_file=phrase(tmp_path))
    assert load_identity(files).warnings == ()
    files.key.chmod(0o644)  # type: ignore[union-attr]
    files.passphrase_file.chmod(0o640)  # type: ignore[union-attr]
    key, passphrase = load_identity(files).warnings
    assert "key" in key
    assert "0644" in key
    assert "passphrase file" in passphrase
    assert "0640" in passphrase
    p12 = bundle(tmp_path, jane, passphrase_file=phrase(tmp_path))
    p12.key.chmod(0o604)  # type: ignore[union-attr]
    assert "0604" in load_identity(p12).warnings[0]


@pytest.mark.parametrize(
    "key",
    [ed25519.Ed25519PrivateKey.generate(), dsa.generate_private_key(2048), ec.generate_private_key(ec.SECP256K1())],
    ids=["ed25519", "dsa", "secp256k1"],
)
def test_a_kind_of_key_that_subscribers_refuse_is_refused_first(
    authority: Authority, jane: Identity, tmp_path: Path, key: Any
) -> None:
    identity = jane if not isinstance(key, ec.EllipticCurvePrivateKey) else authority.issue("Jane Doe", key=key)
    files = with_key(kept(identity, tmp_path), key, serialization.PrivateFormat.PKCS8, None)
    with pytest.raises(CoppiceError, match="not accept"):
        load_identity(files)


def test_weak_keys_and_digests_are_refused(authority: Authority, jane: Identity, tmp_path: Path) -> None:
    with pytest.raises(WeakSignatureError, match="1024"):
        load_identity(kept(authority.issue("Jane Doe", key_type=KeyType.RSA_1024), tmp_path))
    with pytest.raises(WeakSignatureError, match="sha1"):
        load_identity(kept(jane, tmp_path, digest="sha1"))


def test_another_persons_certificate_under_the_same_path_is_refused(
    authority: Authority, jane: Identity, tmp_path: Path
) -> None:
    files = kept(jane, tmp_path, subject=jane.subject, issuer=jane.issuer)
    assert load_identity(files).endorser.subject == jane.subject
    authority.issue("Mallory").write_to(tmp_path, "jane")
    with pytest.raises(EndorserMismatchError, match="CN=Mallory"):
        load_identity(files)
    elsewhere = replace(files, subject=None, issuer=DistinguishedName.parse("/CN=Another CA"))
    with pytest.raises(EndorserMismatchError) as caught:
        load_identity(elsewhere)
    assert "certified by /CN=Another CA" in str(caught.value.details)


def test_a_renewed_certificate_of_the_same_person_is_taken(
    authority: Authority, jane: Identity, tmp_path: Path
) -> None:
    files = kept(jane, tmp_path, subject=jane.subject, issuer=jane.issuer)
    renewed = authority.issue("Jane Doe")
    renewed.write_to(tmp_path, "jane")
    assert load_identity(files).certificate == renewed.certificate


def test_only_a_valid_certificate_for_signing_is_used(authority: Authority, jane: Identity, tmp_path: Path) -> None:
    require_usable(load_identity(kept(jane, tmp_path)), NOW)
    for unfit in (authority.expired(), authority.not_yet_valid()):
        with pytest.raises(SignerExpiredError):
            require_usable(load_identity(kept(unfit, tmp_path)), NOW)
    for unfit in (authority.wrong_usage(), authority.issue_authority("Sub CA").identity):
        with pytest.raises(SignerUsageError):
            require_usable(load_identity(kept(unfit, tmp_path)), NOW)


def test_pkcs12_brings_certificate_key_and_chain(authority: Authority, tmp_path: Path) -> None:
    identity = authority.issue_authority("Sub CA").issue("Jane Doe")
    loaded = load_identity(bundle(tmp_path, identity, passphrase_file=phrase(tmp_path)))
    assert (loaded.certificate, loaded.chain) == (identity.certificate, identity.chain)
    message = sign(b"{}", certificate=loaded.certificate, key=loaded.signer, chain=loaded.chain)
    assert open_message(message).other_certificates == identity.chain


def test_pkcs12_needs_its_passphrase(jane: Identity, tmp_path: Path) -> None:
    files = bundle(tmp_path, jane)
    with pytest.raises(UnreadableFileError, match="no passphrase was given"):
        load_identity(files)
    with pytest.raises(CredentialError, match="another one"):
        load_identity(replace(files, passphrase_file=phrase(tmp_path, b"wrong")))
    assert load_identity(bundle(tmp_path, jane, None)).endorser.subject == jane.subject


def test_pkcs12_that_lacks_something_is_refused(authority: Authority, jane: Identity, tmp_path: Path) -> None:
    files = bundle(tmp_path, jane, None)
    path = tmp_path / "jane.p12"
    for damaged in (b"", b"garbage", path.read_bytes()[:-40], b"0\x80" + b"\0" * 100):
        path.write_bytes(damaged)
        with pytest.raises(UnreadableFileError):
            load_identity(files)
    other = authority.issue("Other")
    path.write_bytes(pkcs12.serialize_key_and_certificates(b"x", None, jane.certificate, None, PLAIN))
    with pytest.raises(UnreadableFileError, match="no private key"):
        load_identity(files)
    path.write_bytes(pkcs12.serialize_key_and_certificates(b"x", jane.key, None, [other.certificate], PLAIN))
    with pytest.raises(UnreadableFileError, match="belongs to the key"):
        load_identity(files)


def test_of_two_certificates_of_one_key_the_newest_is_taken(
    authority: Authority, jane: Identity, tmp_path: Path
) -> None:
    renewed = authority.issue("Jane Doe", key=jane.key, not_after=NOW + timedelta(days=700))
    files = bundle(tmp_path, jane, None)
    (tmp_path / "jane.p12").write_bytes(
        pkcs12.serialize_key_and_certificates(b"x", jane.key, jane.certificate, [renewed.certificate], PLAIN)
    )
    assert load_identity(files).certificate == renewed.certificate


DAMAGE = {
    "a version that there is not": (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01"),
    "a key of an unknown kind": (b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x7f"),
    "a name that is no text": (b"\x0c\x08Jane Doe", b"\x0c\x08Jane\xff\xff\xff\xff"),
    "an extension that is none": (b"\x30\x00\x30", b"\x30\x01\x30"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_certificate_is_an_error_and_no_crash(jane: Identity, tmp_path: Path, damage: str) -> None:
    files = kept(jane, tmp_path)
    before, after = DAMAGE[damage]
    der = jane.certificate.public_bytes(serialization.Encoding.DER).replace(before, after)
    body = base64.encodebytes(der)
    certificate = tmp_path / "damaged.pem"
    certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n")
    assert der != jane.certificate.public_bytes(serialization.Encoding.DER)
    with pytest.raises(CoppiceError):
        require_usable(load_identity(replace(files, certificate=certificate)), NOW)
