# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import InputError
from coppice.imagelist.token_uri import TokenUri, is_token_uri

pytestmark = pytest.mark.unit
MODULE = "module-path=/usr/lib/softhsm/libsofthsm2.so"


def test_a_uri_names_one_key_on_one_token() -> None:
    uri = TokenUri.parse(
        "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=a1b2;token=Our%20token;"
        f"slot-id=7;id=%01%ff;object=j%C3%A4ne;type=private?{MODULE}"
    )
    assert uri == TokenUri(
        module=Path("/usr/lib/softhsm/libsofthsm2.so"),
        token="Our token",  # noqa: S106 - a label
        serial="a1b2",
        manufacturer="SoftHSM project",
        model="SoftHSM v2",
        slot=7,
        label="jäne",
        identifier=b"\x01\xff",
    )
    assert str(uri) == "the key with label 'jäne' and identifier 01ff on the token 'Our token'"


def test_the_scheme_may_be_in_capitals() -> None:
    assert is_token_uri("PKCS11:token=a")
    assert not is_token_uri("/keys/pkcs11:a")
    assert TokenUri.parse(f"PKCS11:serial=a;id=%01?{MODULE}").place == "the token of serial number 'a'"
    assert TokenUri.parse(f"pkcs11:slot-id=3;id=%01?{MODULE}").place == "the token in slot 3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file:/keys/jane.key", "must begin with pkcs11:"),
        ("pkcs11:" + "token=a;" * 1000, "at most 4096"),
        (f"pkcs11:object=a?{MODULE}", "which token"),
        (f"pkcs11:token=a?{MODULE}", "which key"),
        ("pkcs11:token=a;object=b", "module-path is needed"),
        ("pkcs11:token=a;object=b?module-path=softhsm.so", "module-path is needed"),
        (f"pkcs11:token=a;token=b;object=c?{MODULE}", "token stands there twice"),
        (f"pkcs11:token=a;object=b;type=cert?{MODULE}", "private key"),
        (f"pkcs11:token=a;object=b;library-version=3?{MODULE}", "'library-version'"),
        (f"pkcs11:token=a;object=b?{MODULE}&module-name=x", "'module-name'"),
        (f"pkcs11:token=a;object=b;slot-id=first?{MODULE}", "slot-id must be a number"),
        (f"pkcs11:token=a b;object=b?{MODULE}", "written as %XX"),
        (f"pkcs11:token=a%2;object=b?{MODULE}", "written as %XX"),
        (f"pkcs11:token=%FF;object=b?{MODULE}", "not UTF-8"),
        (f"pkcs11:token=%00;object=b?{MODULE}", "zero character"),
        (f"pkcs11:token;object=b?{MODULE}", "name=value"),
        (f"pkcs11:token=a;;object=b?{MODULE}", "name=value"),
    ],
)
def test_a_uri_that_names_no_one_key_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        TokenUri.parse(text)


@pytest.mark.parametrize("pin", ["pin-value=4711", "pin-source=file:/4711"])
def test_a_pin_in_the_uri_is_refused_and_not_repeated(pin: str) -> None:
    for text in (f"pkcs11:token=a;object=b?{MODULE}&{pin}", f"pkcs11:token=a;object=b?{pin}", f"pkcs11:?{pin}"):
        with pytest.raises(InputError, match="PIN does not belong") as caught:
            TokenUri.parse(text)
        assert "4711" not in str(caught.value.as_dict())


@given(st.text(alphabet="pkcs1:token=object;id%&?/-01fF \0ä", max_size=60))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    for candidate in (text, f"pkcs11:{text}", f"pkcs11:token=a;object=b?{text}"):
        try:
            TokenUri.parse(candidate)
        except InputError:
            continue
