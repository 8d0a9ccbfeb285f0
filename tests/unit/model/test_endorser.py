# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.model.endorser import DistinguishedName

pytestmark = pytest.mark.unit


def test_the_slash_form_and_the_comma_form_are_one_name() -> None:
    slashes = DistinguishedName.parse("/DC=org/DC=example/O=People/CN=Jane Doe")
    commas = DistinguishedName.parse("CN=Jane Doe,O=People,DC=example,DC=org")
    assert slashes == commas
    assert str(commas) == "/DC=org/DC=example/O=People/CN=Jane Doe"


@pytest.mark.parametrize("spelling", ["emailAddress", "Email", "E", "1.2.840.113549.1.9.1"])
def test_an_attribute_type_has_one_meaning_in_all_its_spellings(spelling: str) -> None:
    assert DistinguishedName.parse(f"/CN=x/{spelling}=x@example.org") == DistinguishedName.of(
        ("CN", "x"), ("emailAddress", "x@example.org")
    )


@pytest.mark.threat("T16")
def test_a_value_that_imitates_two_attributes_is_another_name() -> None:
    honest = DistinguishedName.parse("/O=People/CN=Jane Doe")
    imitation = DistinguishedName.of(("O", "People/CN=Jane Doe"))
    assert str(honest) == str(imitation)
    assert honest != imitation


def test_a_host_name_with_a_slash_stays_one_value() -> None:
    name = DistinguishedName.parse("/DC=org/CN=host/lists.example.org")
    assert name.attributes[-1] == ("cn", "host/lists.example.org")


@pytest.mark.parametrize("text", ["", "Jane", "/", "/Jane", "x/CN=Jane", "/CN=" + "x" * 5000])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="distinguished name"):
        DistinguishedName.parse(text)
