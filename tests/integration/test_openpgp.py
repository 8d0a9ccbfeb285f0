# SPDX-License-Identifier: Apache-2.0
"""Signatures of the real GnuPG, judged against pinned keyrings; and what nobody may get past them."""

from __future__ import annotations

import base64
import os
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from coppice.errors import (
    ExpiredListError,
    KeyringError,
    SignatureFormError,
    SignerCountError,
    SignerExpiredError,
    SignerRevokedError,
    TamperedListError,
    ToolMissingError,
    TrustError,
    UnsignedListError,
    UntrustedSignerError,
    WeakSignatureError,
    WrongSignerError,
)
from coppice.model.checksum import Checksum
from coppice.subscription.model import TrustBasis
from coppice.subscription.openpgp import Keyring
from coppice.testing.openpgp import GnuPg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.testing.openpgp import ThrowAwayKey

pytestmark = pytest.mark.integration
TEXT = b'{\n "a": "one  ",\n "b": "- two"\n}\n- dash\n-----no mark\nFrom here\nlast'
COVERED = b'{\n "a": "one  ",\n "b": "- two"\n}\n- dash\n-----no mark\nFrom here\nlast\n'
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def gnupg() -> Iterator[GnuPg]:
    with GnuPg() as found:
        yield found


@pytest.fixture(scope="module")
def jane(gnupg: GnuPg) -> ThrowAwayKey:
    return gnupg.make_key("Jane")


@pytest.fixture(scope="module")
def mallory(gnupg: GnuPg) -> ThrowAwayKey:
    return gnupg.make_key("Mallory")


@pytest.fixture
def keep(gnupg: GnuPg, tmp_path: Path):
    def load(*keys: ThrowAwayKey, armour: bool = False) -> Keyring:
        path = tmp_path / "keyring"
        path.write_bytes(gnupg.export(*keys, armour=armour))
        return Keyring.load([path])

    return load


@pytest.mark.parametrize("armour", [False, True])
@pytest.mark.parametrize("algorithm", ["ed25519", "rsa2048", "nistp256"])
def test_a_clear_signed_text_is_what_its_signer_signed(gnupg: GnuPg, keep, algorithm: str, armour: bool):
    key = gnupg.make_key(algorithm=algorithm)
    text, found = keep(key, armour=armour).verify_cleartext(gnupg.clear_sign(TEXT, key), what="it")
    assert text == COVERED
    assert found.signer == found.key == key.fingerprint
    assert abs(found.signed_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert found.trusted_by.basis is TrustBasis.OPENPGP
    assert found.trusted_by.signer == key.fingerprint
    assert isinstance(found.trusted_by.fingerprint, Checksum)


@pytest.mark.parametrize("armour", [False, True])
def test_a_detached_signature_vouches_for_the_bytes_beside_it(gnupg: GnuPg, jane: ThrowAwayKey, keep, armour: bool):
    data = bytes(range(256)) * 9
    found = keep(jane).verify_detached(data, gnupg.sign_detached(data, jane, armour=armour), what="it")
    assert found.signer == jane.fingerprint
    with pytest.raises(TamperedListError):
        keep(jane).verify_detached(data + b"\n", gnupg.sign_detached(data, jane), what="it")


def test_a_subkey_signs_for_its_primary_key_until_it_is_revoked(gnupg: GnuPg, keep):
    key = gnupg.make_key()
    gnupg.add_subkey(key)
    signed = gnupg.clear_sign(TEXT, key)
    _, found = keep(key).verify_cleartext(signed, what="it")
    assert found.signer == key.fingerprint
    assert found.key != key.fingerprint
    gnupg.revoke_subkey(key)
    with pytest.raises(SignerRevokedError):
        keep(key).verify_cleartext(signed, what="it")


def test_windows_line_ends_do_no_harm(gnupg: GnuPg, jane: ThrowAwayKey, keep):
    signed = gnupg.clear_sign(TEXT, jane)
    text, _ = keep(jane).verify_cleartext(signed.replace(b"\n", b"\r\n"), what="it")
    assert text.replace(b"\r\n", b"\n") == COVERED


@pytest.mark.threat("T5")
def test_one_changed_byte_is_found(gnupg: GnuPg, jane: ThrowAwayKey, keep):
    signed = gnupg.clear_sign(TEXT, jane)
    with pytest.raises(TamperedListError):
        keep(jane).verify_cleartext(signed.replace(b"one", b"two"), what="it")


@pytest.mark.threat("T6")
@pytest.mark.parametrize("document", [b"{}", b"", b"\n-----BEGIN PGP SIGNED MESSAGE-----\n"])
def test_what_is_not_signed_is_not_believed(jane: ThrowAwayKey, keep, document: bytes):
    with pytest.raises(UnsignedListError):
        keep(jane).verify_cleartext(document, what="it")


@pytest.mark.threat("T8")
def test_nothing_may_stand_around_the_signed_text(gnupg: GnuPg, jane: ThrowAwayKey, keep):
    ring, signed = keep(jane), gnupg.clear_sign(TEXT, jane)
    for document in (
        signed + b'{"evil": 1}\n',
        signed + signed,
        signed.replace(b"\n\n", b"\nNotDashEscaped: yes\n\n", 1),
        signed.replace(b"\n\n", b'\n{"evil": 1}\n\n', 1),
        signed.replace(b"-----BEGIN PGP SIGNATURE", b"-evil\n-----BEGIN PGP SIGNATURE"),
        signed.replace(b"\nlast", b"\n\x00last"),
        signed.replace(b"one", b"one" + b" " * 20_000),
        signed.replace(b"From", b"\rFrom"),
        signed.replace(b"-----BEGIN PGP SIGNATURE-----", b"-----BEGIN PGP MESSAGE-----"),
        signed[: signed.index(b"-----END")],
    ):
        with pytest.raises(SignatureFormError):
            ring.verify_cleartext(document, what="it")


@pytest.mark.threat("T8")
def test_a_block_of_signatures_holds_nothing_else(gnupg: GnuPg, jane: ThrowAwayKey, keep):
    ring, signed = keep(jane), gnupg.clear_sign(TEXT, jane)
    inline = gnupg.sign_inline(b"other", jane, armour=True).replace(b"PGP MESSAGE", b"PGP SIGNATURE")
    text = signed[: signed.index(b"-----BEGIN PGP SIGNATURE")]
    many = gnupg.sign_detached(TEXT, jane) * 4000
    block = b"-----BEGIN PGP SIGNATURE-----\n\n" + base64.encodebytes(many) + b"-----END PGP SIGNATURE-----\n"
    for document in (text + inline, text + block):
        with pytest.raises(SignatureFormError):
            ring.verify_cleartext(document, what="it")


@pytest.mark.threat("T8")
@pytest.mark.parametrize("armour", [False, True])
def test_a_detached_signature_brings_no_text_of_its_own(gnupg: GnuPg, jane: ThrowAwayKey, keep, armour: bool):
    ring = keep(jane)
    bomb = gnupg.sign_inline(b"\0" * 50_000_000, jane, armour=armour)
    for signature in (gnupg.sign_inline(b"other", jane, armour=armour), gnupg.clear_sign(TEXT, jane), bomb, b"", b"x"):
        with pytest.raises(SignatureFormError):
            ring.verify_detached(TEXT, signature, what="it")


def test_a_signature_over_text_is_none_over_bytes(gnupg: GnuPg, jane: ThrowAwayKey, keep):
    signed = gnupg.clear_sign(b"text\n", jane)
    signature = signed[signed.index(b"-----BEGIN PGP SIGNATURE") :]
    with pytest.raises((SignatureFormError, TamperedListError)):
        keep(jane).verify_detached(b"text", signature, what="it")


@pytest.mark.threat("T13")
def test_a_key_outside_the_keyring_is_named_and_refused(gnupg: GnuPg, jane: ThrowAwayKey, mallory: ThrowAwayKey, keep):
    with pytest.raises(UntrustedSignerError, match=mallory.fingerprint):
        keep(jane).verify_cleartext(gnupg.clear_sign(TEXT, mallory), what="it")
    with pytest.raises(UntrustedSignerError):
        keep(jane).verify_detached(TEXT, gnupg.sign_detached(TEXT, mallory), what="it")


@pytest.mark.threat("T9")
def test_of_two_signatures_one_must_be_the_one_that_counts(
    gnupg: GnuPg, jane: ThrowAwayKey, mallory: ThrowAwayKey, keep
):
    both = gnupg.clear_sign(TEXT, jane, mallory)
    # A key that is not known says nothing: so a publisher can change keys.
    assert keep(jane).verify_cleartext(both, what="it")[1].signer == jane.fingerprint
    assert keep(mallory).verify_cleartext(both, what="it")[1].signer == mallory.fingerprint
    with pytest.raises(SignerCountError):
        keep(jane, mallory).verify_cleartext(both, what="it")
    named = keep(jane, mallory).verify_cleartext(both, what="it", signer=mallory.fingerprint)
    assert named[1].signer == mallory.fingerprint
    with pytest.raises(WrongSignerError):
        keep(jane, mallory).verify_cleartext(gnupg.clear_sign(TEXT, jane), what="it", signer=mallory.fingerprint)
    twice = gnupg.sign_detached(TEXT, jane) + gnupg.sign_detached(TEXT, jane)
    with pytest.raises(SignerCountError):
        keep(jane).verify_detached(TEXT, twice, what="it")


@pytest.mark.threat("T9")
def test_a_bad_signature_beside_a_good_one_refuses_both(gnupg: GnuPg, jane: ThrowAwayKey, mallory: ThrowAwayKey, keep):
    mixed = gnupg.sign_detached(b"other", mallory) + gnupg.sign_detached(TEXT, jane)
    for signature in (mixed, gnupg.sign_detached(TEXT, jane) + gnupg.sign_detached(b"other", mallory)):
        with pytest.raises(TamperedListError):
            keep(jane, mallory).verify_detached(TEXT, signature, what="it", signer=jane.fingerprint)
    with pytest.raises(SignerCountError):
        keep(jane).verify_detached(TEXT, gnupg.sign_detached(TEXT, mallory) * 9, what="it")


@pytest.mark.threat("T11")
def test_weak_digests_and_keys_are_refused(gnupg: GnuPg, keep):
    rsa = gnupg.make_key(algorithm="rsa2048")
    for digest in ("sha1", "ripemd160", "sha224"):
        with pytest.raises(WeakSignatureError):
            keep(rsa).verify_cleartext(gnupg.clear_sign(TEXT, rsa, digest=digest), what="it")
    with pytest.raises(WeakSignatureError):
        keep(rsa).verify_cleartext(gnupg.clear_sign(TEXT, rsa, digest="md5"), what="it")
    for algorithm in ("rsa1024", "dsa2048"):
        weak = gnupg.make_key(algorithm=algorithm)
        with pytest.raises(WeakSignatureError):
            keep(weak).verify_cleartext(gnupg.clear_sign(TEXT, weak, digest="sha256"), what="it")


@pytest.mark.threat("T18")
def test_an_expired_key_signs_nothing_new_and_what_it_signed_before_stays(gnupg: GnuPg, keep):
    key = gnupg.make_key(expires="20d", at=NOW - 30 * DAY)
    signed = gnupg.clear_sign(TEXT, key, at=NOW - 15 * DAY)
    ring = keep(key)
    with pytest.raises(SignerExpiredError, match="expired on"):
        ring.verify_cleartext(signed, what="it")
    _, found = ring.verify_cleartext(signed, what="it", first_verified_at=NOW - 14 * DAY)
    assert found.key_expired_at is not None
    assert found.signed_at < found.key_expired_at < NOW
    with pytest.raises(SignerExpiredError):
        ring.verify_cleartext(signed, what="it", first_verified_at=NOW - 5 * DAY)
    gnupg.prolong(key, "1y")
    assert keep(key).verify_cleartext(signed, what="it")[1].key_expired_at is None


@pytest.mark.threat("T19")
def test_a_key_that_is_revoked_ends_the_trust_in_all_that_it_signed(gnupg: GnuPg, keep):
    key = gnupg.make_key()
    signed = gnupg.clear_sign(TEXT, key)
    ring = keep(key)
    before = ring.state
    ring.verify_cleartext(signed, what="it")
    gnupg.revoke(key)
    after = keep(key)
    assert after.state != before
    with pytest.raises(SignerRevokedError):
        after.verify_cleartext(signed, what="it", first_verified_at=NOW - DAY)


def test_a_signature_may_end_by_itself(gnupg: GnuPg, keep):
    key = gnupg.make_key(at=NOW - 30 * DAY)
    signed = gnupg.clear_sign(TEXT, key, at=NOW - 20 * DAY, expires="5d")
    longer = gnupg.clear_sign(TEXT, key, at=NOW - 20 * DAY, expires="90d")
    ring = keep(key)
    with pytest.raises(ExpiredListError):
        ring.verify_cleartext(signed, what="it")
    expires = ring.verify_cleartext(longer, what="it")[1].expires
    assert expires is not None
    assert expires > NOW


def test_a_keyring_must_hold_public_keys_and_no_secret_one(gnupg: GnuPg, jane: ThrowAwayKey, tmp_path: Path):
    path = tmp_path / "ring"
    with pytest.raises(KeyringError, match="No such file"):
        Keyring.load([path])
    for data in (
        b"",
        b"\n",
        b"hello",
        gnupg.export_secret(jane),
        gnupg.export(jane)[:-1],
        gnupg.sign_detached(b"", jane),
    ):
        path.write_bytes(data)
        with pytest.raises(KeyringError):
            Keyring.load([path])
    with pytest.raises(KeyringError):
        Keyring.load([])
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(KeyringError):
            Keyring.load([path])


def test_several_keyrings_are_one(gnupg: GnuPg, jane: ThrowAwayKey, mallory: ThrowAwayKey, tmp_path: Path):
    paths = []
    for number, (key, armour) in enumerate([(jane, True), (mallory, False)]):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(gnupg.export(key, armour=armour))
    ring = Keyring.load(paths)
    assert ring.signers == (jane.fingerprint, mallory.fingerprint)
    for key in (jane, mallory):
        assert ring.verify_cleartext(gnupg.clear_sign(TEXT, key), what="it")[1].signer == key.fingerprint


def test_a_machine_without_gpgv_says_so(gnupg: GnuPg, jane: ThrowAwayKey, keep, monkeypatch: pytest.MonkeyPatch):
    signed, ring = gnupg.clear_sign(TEXT, jane), keep(jane)
    monkeypatch.setattr("coppice.process.shutil.which", lambda *_, **__: None)
    with pytest.raises(ToolMissingError, match="gpgv"):
        ring.verify_cleartext(signed, what="it")


@pytest.mark.threat("T12")
@pytest.mark.parametrize("number", [pytest.param(60, id="60"), pytest.param(1500, id="1500", marks=pytest.mark.soak)])
def test_no_mutation_of_a_signed_text_is_taken_for_another_one(gnupg: GnuPg, jane: ThrowAwayKey, keep, number: int):
    ring, signed = keep(jane), gnupg.clear_sign(TEXT, jane)
    random_source = random.Random(7)  # noqa: S311 - mutations, no secret
    for _ in range(number):
        changed = bytearray(signed)
        for _ in range(random_source.randint(1, 3)):
            at = random_source.randrange(len(changed))
            if random_source.random() < 0.3:
                del changed[at : at + random_source.randint(1, 40)]
            else:
                changed[at] = random_source.randrange(256)
        try:
            text, _ = ring.verify_cleartext(bytes(changed), what="it")
        except TrustError:
            continue
        # White space at the ends of lines is not covered, nor are the names of digests or the armour's spelling.
        assert [line.rstrip() for line in text.splitlines()] == [line.rstrip() for line in COVERED.splitlines()]
