# SPDX-License-Identifier: Apache-2.0
"""Keyrings and envelopes are read without a tool, strictly."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import DocumentError
from coppice.formats.cleartext import covered_lines, is_same_text, signature_block
from coppice.formats.openpgp import packets, read_detached_signature, read_keyring

pytestmark = pytest.mark.unit
ED25519 = bytes.fromhex("2b06010401da470f01")
SIGNED = (
    b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{}\n- - x\n"
    b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"
)


def packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 255]) + len(body).to_bytes(4, "big") + body


def key(number: int, material: bytes, version: int = 4) -> bytes:
    return bytes([version]) + b"\0\0\0\1" + bytes([number]) + material


def armoured(data: bytes, crc: bytes = b"", kind: bytes = b"PUBLIC KEY BLOCK") -> bytes:
    body = base64.encodebytes(data)
    return b"-----BEGIN PGP " + kind + b"-----\nComment: x\n\n" + body + crc + b"-----END PGP " + kind + b"-----\n"


def rsa(bits: int) -> bytes:
    return key(1, bits.to_bytes(2, "big") + b"\xff" * (bits // 8) + b"\0\x11\1\0\1")


EDDSA = key(22, bytes([len(ED25519)]) + ED25519 + b"\x01\x07" + b"\x40" * 33)


def test_a_keyring_is_told_by_fingerprint_algorithm_and_size():
    data = packet(6, rsa(2048)) + packet(13, b"Jane") + packet(14, EDDSA) + packet(6, rsa(1024))
    binary, keys = read_keyring(data)
    assert binary == data
    fingerprint = hashlib.sha1(b"\x99" + len(rsa(2048)).to_bytes(2, "big") + rsa(2048)).hexdigest().upper()  # noqa: S324 - what OpenPGP has
    assert keys[0].fingerprint == keys[0].primary == keys[1].primary == fingerprint
    assert [(each.algorithm, each.bits, each.is_strong) for each in keys] == [
        ("RSA", 2048, True),
        ("Ed25519", 256, True),
        ("RSA", 1024, False),
    ]


def test_armour_holds_the_same_and_several_blocks_are_one():
    one, other = packet(6, rsa(2048)), packet(6, EDDSA)
    assert read_keyring(armoured(one) + b"\n" + armoured(other))[0] == one + other


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x99",
        b"hello",
        packet(13, b"Jane"),
        packet(14, EDDSA),
        packet(5, EDDSA) + packet(6, EDDSA),
        packet(6, EDDSA) + packet(7, EDDSA),
        packet(6, EDDSA) + packet(11, b"b\0\0\0\0\0text"),
        packet(6, EDDSA)[:-1],
        packet(6, b""),
        packet(6, b"\x09" + EDDSA[1:]),
        packet(6, b"\x03" + EDDSA[1:]),
        b"\xc6\xe0" + EDDSA,
        b"\x9b" + EDDSA,
        armoured(packet(6, EDDSA), b"=AAAA\n"),
        armoured(packet(6, EDDSA))[:-10],
        armoured(packet(6, EDDSA)) + b"text\n",
        armoured(packet(6, EDDSA)).replace(b"PUBLIC", b"PRIVATE"),
        armoured(packet(6, EDDSA)).replace(b"\n\n", b"\n\n?", 1),
        b"\0" * 8 + b"KBXf" + b"\0" * 100,
        packet(6, EDDSA) * 1001,
    ],
)
def test_what_is_no_keyring_of_public_keys_is_refused(data: bytes):
    with pytest.raises(DocumentError):
        read_keyring(data)


def test_a_detached_signature_is_signatures_only():
    one = packet(2, b"\4x")
    assert read_detached_signature(one + one) == one + one
    assert read_detached_signature(armoured(one, kind=b"SIGNATURE")) == one
    for bad in (b"", one + packet(11, b"b"), packet(8, b"\1x"), armoured(one), one[:-1]):
        with pytest.raises(DocumentError):
            read_detached_signature(bad)


@given(
    st.binary(max_size=400) | st.binary(max_size=60).map(armoured) | st.binary(max_size=60).map(lambda x: b"\xc6" + x)
)
def test_no_bytes_break_the_reader_of_packets(data: bytes):
    for read in (read_keyring, read_detached_signature, lambda x: list(packets(x))):
        try:
            read(data)
        except DocumentError:
            continue


def test_what_a_signature_covers_is_between_its_marks():
    assert covered_lines(SIGNED) == [b"{}", b"- x"]
    assert signature_block(SIGNED) == b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----"
    assert covered_lines(SIGNED.replace(b"\n", b" \r\n")) == [b"{}", b"- x"]
    assert is_same_text([b"{}", b"- x"], b"{}\r\n- x\r\n\n")
    assert not is_same_text([b"{}", b"- x"], b"{}\n")


@pytest.mark.threat("T8")
@pytest.mark.parametrize(
    "bad",
    [
        b" " + SIGNED,
        b"x\n" + SIGNED,
        SIGNED + b"x",
        SIGNED + SIGNED,
        SIGNED.replace(b"- - x", b"-x"),
        SIGNED.replace(b"- - x", b"-----BEGIN PGP SIGNED MESSAGE-----"),
        SIGNED.replace(b"Hash:", b"Charset:"),
        SIGNED.replace(b"\n\n", b"\nx\n\n", 1),
        SIGNED.replace(b"{}", b"\x1b{}"),
        SIGNED.replace(b"{}", b"{\r}"),
        SIGNED.replace(b"{}", b"x" * 17_000),
        SIGNED.replace(b"-----END PGP SIGNATURE-----\n", b""),
        SIGNED.replace(b"-----BEGIN PGP SIGNATURE-----", b"-----BEGIN PGP SIGNATURE----- x"),
    ],
)
def test_a_signed_text_that_two_readers_may_take_differently_is_refused(bad: bytes):
    with pytest.raises(DocumentError):
        covered_lines(bad)


@given(st.lists(st.sampled_from([*SIGNED.splitlines(keepends=True), b"-", b"\r", b"x\n", b"\n", b"Hash: a\n"])))
def test_no_lines_break_the_reader_of_signed_texts(lines: list[bytes]):
    try:
        covered_lines(b"".join(lines))
    except DocumentError:
        return
