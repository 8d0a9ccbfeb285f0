# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.definition.git_signature import (
    MAX_KEY_BYTES,
    KeyKind,
    PinnedKey,
    Signed,
    judge,
    signature_of_commit,
    signature_of_tag,
    tagged,
)
from coppice.errors import (
    DefinitionSourceError,
    SignatureFormError,
    TrustError,
    UnsignedListError,
    UntrustedSignerError,
)

pytestmark = pytest.mark.unit

ARMOUR = b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"
PGP = b"-----BEGIN PGP SIGNATURE-----\n\niHUE\n-----END PGP SIGNATURE-----\n"
HEAD = b"tree 1\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n"
FOLDED = b"gpgsig -----BEGIN SSH SIGNATURE-----\n U1NIU0lH\n -----END SSH SIGNATURE-----\n"
SSH = PinnedKey(kind=KeyKind.SSH, text="x\n")
OPENPGP = PinnedKey(kind=KeyKind.OPENPGP, text="x\n")


def test_a_commit_is_parted_from_its_signature():
    signed = signature_of_commit(HEAD + FOLDED + b"encoding x\n\nmessage\n\ngpgsig is a word\n")
    assert signed.payload == HEAD + b"encoding x\n\nmessage\n\ngpgsig is a word\n"
    assert signed.signature == ARMOUR


def test_a_commit_without_a_signature_has_none():
    assert signature_of_commit(HEAD + b"\nmessage\n") == Signed(payload=HEAD + b"\nmessage\n", signature=b"")


@pytest.mark.parametrize("second", [FOLDED, FOLDED.replace(b"gpgsig", b"gpgsig-sha256")])
def test_a_commit_with_two_signatures_is_refused(second):
    with pytest.raises(SignatureFormError):
        signature_of_commit(HEAD + FOLDED + second + b"\nmessage\n")


def test_a_tag_is_parted_from_its_signature():
    raw = b"object " + b"1" * 40 + b"\ntype commit\ntag v1\ntagger A <a@b> 1 +0000\n\nfirst\n"
    assert signature_of_tag(raw + ARMOUR) == Signed(payload=raw, signature=ARMOUR)
    assert signature_of_tag(raw + PGP) == Signed(payload=raw, signature=PGP)
    assert signature_of_tag(raw).signature == b""
    assert tagged(raw) == ("1" * 40, "commit", "v1")


@pytest.mark.parametrize("raw", [b"", b"object x\ntype commit\ntag v1\n", b"tag v1\n"])
def test_a_tag_that_does_not_say_what_it_is_of_is_refused(raw):
    with pytest.raises(SignatureFormError):
        tagged(raw)


def never(*_):
    pytest.fail("nobody was to be asked")


@pytest.mark.parametrize(
    ("signature", "key", "error"),
    [
        (b"", SSH, UnsignedListError),
        (PGP, SSH, UntrustedSignerError),
        (ARMOUR, OPENPGP, UntrustedSignerError),
        (b"something else", OPENPGP, SignatureFormError),
        (PGP + PGP, OPENPGP, SignatureFormError),
        (ARMOUR + b"more", SSH, SignatureFormError),
        (ARMOUR[:20], SSH, SignatureFormError),
        (PGP.replace(b"iHUE", b"x" * 70_000), OPENPGP, SignatureFormError),
    ],
)
def test_a_signature_that_cannot_be_the_keys_is_refused_before_anybody_judges(signature, key, error):
    with pytest.raises(error) as caught:
        judge(Signed(payload=b"x", signature=signature), key, "the commit", never)
    assert "the commit" in caught.value.message
    assert isinstance(caught.value, TrustError)


def test_an_openpgp_signature_is_judged_with_the_pinned_key_alone():
    asked = []
    signer = judge(Signed(payload=b"x", signature=PGP), OPENPGP, "it", lambda *given: asked.append(given) or "ABC")
    assert signer == "ABC"
    assert asked == [(b"x", PGP, "x\n", "it")]


def test_a_public_key_of_openssh_becomes_an_allowed_signer_for_git_alone():
    key = PinnedKey.read(b"ssh-ed25519 AAAAC3Nza someone@host\n", "key.pub")
    assert key == PinnedKey(kind=KeyKind.SSH, text='pinned-key namespaces="git" ssh-ed25519 AAAAC3Nza\n')


def test_allowed_signers_are_kept_as_they_are_without_comments():
    line = 'a@b.example namespaces="git" ssh-ed25519 AAAAC3Nza'
    assert PinnedKey.read(f"# ours\n\n{line}\n".encode(), "allowed").text == f"{line}\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# nothing\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        b"ssh-ed25519 AAAA\nnonsense\n",
        b"ssh-dss AAAA\n",
        b"\xff\xfe",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nnonsense\n-----END PGP PUBLIC KEY BLOCK-----\n",
        b"ssh-ed25519 " + b"A" * MAX_KEY_BYTES,
    ],
)
def test_what_is_no_public_key_is_refused(content):
    with pytest.raises(DefinitionSourceError, match=r"the key key\.pub"):
        PinnedKey.read(content, "key.pub")
