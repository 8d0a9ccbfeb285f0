# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import copy
import os
import pickle

import pytest

from coppice.errors import CredentialError
from coppice.http import Credential, resolve_credential
from coppice.http.location import Location
from coppice.http.message import Question
from coppice.model.credential import CredentialKind, CredentialReference

pytestmark = [pytest.mark.unit, pytest.mark.threat("T54")]
CANARY = "cAnArY-31337"
SECRET = CANARY.encode()


def secret_file(tmp_path, content=SECRET, mode=0o600):
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def decoded(credential):
    scheme, _, value = credential.authorization.partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(value).decode()


def test_a_token_alone_is_the_user_name_that_marketplaces_want(tmp_path):
    reference = CredentialReference(kind=CredentialKind.BASIC, secret_file=secret_file(tmp_path))
    assert decoded(resolve_credential(reference)) == f"{CANARY}:x-oauth-basic"


@pytest.mark.parametrize("content", [b"p w\xc3\xa4:1", b"p w\xc3\xa4:1\n", b"p w\xc3\xa4:1\r\nsecond line\n"])
def test_the_first_line_of_the_file_is_the_password(tmp_path, content):
    reference = CredentialReference(
        kind=CredentialKind.BASIC, username="jane", secret_file=secret_file(tmp_path, content)
    )
    assert decoded(resolve_credential(reference)) == "jane:p wä:1"


def test_a_bearer_token_comes_from_a_variable():
    reference = CredentialReference(kind=CredentialKind.BEARER, secret_variable="TOKEN")  # noqa: S106 - a name
    assert resolve_credential(reference, {"TOKEN": CANARY}).authorization == f"Bearer {CANARY}"
    for environment in ({}, {"TOKEN": ""}, {"TOKEN": "x" * 9000}, {"TOKEN": f"{CANARY}\n"}, {"TOKEN": f"{CANARY} x"}):
        with pytest.raises(CredentialError) as caught:
            resolve_credential(reference, environment)
        assert CANARY not in str(caught.value.as_dict())


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_secret_that_everybody_can_read_or_change_is_refused_and_how_to_mend_it_is_said(tmp_path, mode):
    path = secret_file(tmp_path, mode=mode)
    with pytest.raises(CredentialError, match="everybody") as caught:
        resolve_credential(CredentialReference(kind=CredentialKind.BEARER, secret_file=path))
    assert f"chmod 600 {path}" in caught.value.resolution


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640])
def test_a_secret_for_its_user_or_group_is_fine(tmp_path, mode):
    path = secret_file(tmp_path, mode=mode)
    assert resolve_credential(CredentialReference(kind=CredentialKind.BEARER, secret_file=path)).authorization


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\nsecond", b"x" * 9000, b"\xff\xfe" + CANARY.encode(), CANARY.encode() + b"\x00"]
)
def test_a_file_that_holds_no_secret_is_refused_without_showing_it(tmp_path, content):
    reference = CredentialReference(kind=CredentialKind.BEARER, secret_file=secret_file(tmp_path, content))
    with pytest.raises(CredentialError) as caught:
        resolve_credential(reference)
    assert CANARY not in str(caught.value.as_dict())
    assert caught.value.__cause__ is None


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "missing", ".", "a\0b"):
        with pytest.raises(CredentialError):
            resolve_credential(CredentialReference(kind=CredentialKind.BEARER, secret_file=tmp_path / name))


def test_a_reference_names_one_source(tmp_path):
    path = secret_file(tmp_path)
    for sources in ({}, {"secret_file": path, "secret_variable": "TOKEN"}, {"secret_variable": "A=B"}):
        with pytest.raises(CredentialError):
            resolve_credential(
                CredentialReference(kind=CredentialKind.BEARER, **sources), {"TOKEN": CANARY, "A=B": "x"}
            )
    with pytest.raises(CredentialError):
        resolve_credential(CredentialReference(kind=CredentialKind.CLIENT_CERTIFICATE))


@pytest.mark.parametrize("username", ["a:b", "a\nb", "a\x7f"])
def test_a_user_name_that_http_basic_cannot_carry_is_refused(username):
    with pytest.raises(CredentialError):
        Credential.basic(username, "x")


def test_nothing_of_a_credential_can_be_printed_or_stored(tmp_path):
    certificate = tmp_path / "c.pem"
    key = secret_file(tmp_path)
    found = [
        Credential.basic("jane", CANARY),
        Credential.bearer(CANARY),
        resolve_credential(
            CredentialReference(
                kind=CredentialKind.CLIENT_CERTIFICATE,
                certificate=certificate,
                key=key,
                secret_variable="P",  # noqa: S106 - a name
            ),
            {"P": CANARY},
        ),
    ]
    encoded = found[0].authorization.partition(" ")[2]
    for each in found:
        question = Question(credential=each, body=CANARY.encode())
        location = Location(scheme="https", host="x", port=1, target="/", authorization=each.authorization)
        for text in (repr(each), str(each), f"{each!r:>5}", repr(each.certificate), repr(question), repr(location)):
            assert CANARY not in text
            assert encoded not in text
        for write in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                write(each)


def test_a_key_that_everybody_can_read_is_refused(tmp_path):
    key = secret_file(tmp_path, mode=0o644)
    for reference in (
        CredentialReference(kind=CredentialKind.CLIENT_CERTIFICATE, certificate=tmp_path / "c.pem", key=key),
        CredentialReference(kind=CredentialKind.CLIENT_CERTIFICATE, certificate=key),
    ):
        with pytest.raises(CredentialError, match="everybody"):
            resolve_credential(reference)
