# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unicodedata

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.formats.names import distinguished_name
from coppice.model.endorser import DistinguishedName, Endorser

pytestmark = pytest.mark.unit

JANE = DistinguishedName.of(("DC", "org"), ("DC", "example"), ("O", "People"), ("CN", "Jane Doe"))
TYPES = st.sampled_from(["CN", "O", "ou", "dc", "emailAddress", "UID", "C", "street", "1.2.3.4", "2.5.4.97", "x-own"])
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    st.sampled_from('/+=\\"#,; xXcCnNoO0123aAfF\n\x00é'), max_size=12
)
RELATIVES = st.lists(st.lists(st.tuples(TYPES, VALUES), min_size=1, max_size=3), min_size=1, max_size=4)


@pytest.mark.parametrize(
    "text",
    [
        "/DC=org/DC=example/O=People/CN=Jane Doe",
        "/dc=org/domainComponent=example/organizationName=People/2.5.4.3=Jane Doe",
        "  /DC=org/DC=example/O=People/CN=Jane Doe\n",
        "CN=Jane Doe,O=People,DC=example,DC=org",
        "cn=Jane Doe, o=People; dc=example ,DC=org",
        'CN="Jane Doe",O="People",DC="example",DC="org"',
        "CN=Jane\\20Doe,O=\\50eople,DC=example,DC=org",
        "CN=#0c084a616e6520446f65,OID.2.5.4.10=#130650656f706c65,DC=#16076578616d706c65,DC=org",
        "DC = org, DC = example, O = People, CN = Jane Doe",
    ],
)
def test_a_name_is_the_same_in_every_form(text: str) -> None:
    assert DistinguishedName.parse(text) == JANE
    assert str(DistinguishedName.parse(text)) == "/DC=org/DC=example/O=People/CN=Jane Doe"


@pytest.mark.parametrize(
    "spelling", ["emailAddress", "Email", "E", "EMAIL", "1.2.840.113549.1.9.1", "OID.1.2.840.113549.1.9.1"]
)
def test_an_attribute_type_has_one_meaning_in_all_its_spellings(spelling: str) -> None:
    expected = DistinguishedName.of(("CN", "x"), ("emailAddress", "x@example.org"))
    assert DistinguishedName.parse(f"/CN=x/{spelling}=x@example.org") == expected
    assert DistinguishedName.parse(f"{spelling}=x@example.org,CN=x") == expected


@pytest.mark.threat("T16")
def test_a_value_that_imitates_two_attributes_is_another_name_and_is_written_otherwise() -> None:
    honest = DistinguishedName.parse("/O=People/CN=Jane Doe")
    imitation = DistinguishedName.of(("O", "People/CN=Jane Doe"))
    assert honest != imitation
    assert str(imitation) == r"/O=People\/CN=Jane Doe"
    assert DistinguishedName.parse(str(imitation)) == imitation


@pytest.mark.threat("T16")
@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("People+CN=Jane", r"/O=People\+CN=Jane"),
        ("People\\", "/O=People\\\\"),
        (r"People\/CN=Jane", r"/O=People\\\/CN=Jane"),
        ("a\x00b\x1b[2J", r"/O=a\x00b\x1B[2J"),
        ("left\u202eright", r"/O=left\xE2\x80\xAEright"),
        ("end ", r"/O=end\x20"),
        ("C++ / C#", "/O=C++ / C#"),
        ("Jörg", "/O=Jörg"),
    ],
)
def test_no_value_is_written_so_that_it_reads_as_something_else(value: str, written: str) -> None:
    name = DistinguishedName.of(("O", value), ("CN", "x"))
    assert str(name) == f"{written}/CN=x"
    assert DistinguishedName.parse(str(name)) == name


def test_a_host_name_with_a_slash_stays_one_value() -> None:
    name = DistinguishedName.parse("/DC=org/CN=host/lists.example.org")
    assert name.attributes[-1] == ("cn", "host/lists.example.org")
    assert str(name) == "/DC=org/CN=host/lists.example.org"


@pytest.mark.parametrize("text", [r"/DC=org/CN=host\/lists.example.org", r"CN=host/lists.example.org,DC=org"])
def test_an_escaped_slash_is_a_slash(text: str) -> None:
    assert DistinguishedName.parse(text) == DistinguishedName.of(("DC", "org"), ("CN", "host/lists.example.org"))


def test_bytes_that_openssl_escapes_are_read_as_utf_8() -> None:
    assert DistinguishedName.parse(r"/CN=J\xC3\xB6rg") == DistinguishedName.parse(r"CN=J\C3\B6rg")
    assert DistinguishedName.parse(r"/CN=J\xC3\xB6rg") == DistinguishedName.of(("CN", "Jörg"))


def test_relative_names_of_several_attributes_have_no_order() -> None:
    one = DistinguishedName.parse("/DC=org/CN=Jane+UID=jd")
    assert one == DistinguishedName.parse("uid=jd+cn=Jane,dc=org")
    assert one == DistinguishedName.parse("DC = org, UID = jd + CN = Jane")
    assert one == DistinguishedName.of(*one.attributes)
    assert str(one) == "/DC=org/CN=Jane+UID=jd"
    assert one != DistinguishedName.parse("/DC=org/CN=Jane/UID=jd")
    assert one != DistinguishedName.of(("DC", "org"), ("CN", "Jane+UID=jd"))


@pytest.mark.threat("T16")
def test_the_parts_of_joined_values_cannot_be_shifted() -> None:
    one = DistinguishedName.of_relatives([[("cn", "a+b"), ("o", "c")]])
    other = DistinguishedName.of_relatives([[("cn", "a"), ("o", "b+c")]])
    assert one != other
    assert one == DistinguishedName.of(*one.attributes)


def test_values_are_compared_exactly_but_for_their_encoding() -> None:
    composed, decomposed = "Jörg", unicodedata.normalize("NFD", "Jörg")
    assert DistinguishedName.of(("CN", composed)) == DistinguishedName.of(("CN", decomposed))
    for other in ("jane doe", "Jane  Doe", "Jane Doe ", "Jane Do\u0435"):
        assert DistinguishedName.of(("CN", "Jane Doe")) != DistinguishedName.of(("CN", other))


@pytest.mark.parametrize("kind", [_ASN1Type.UTF8String, _ASN1Type.PrintableString, _ASN1Type.BMPString])
def test_the_string_type_of_a_certificate_does_not_matter(kind: _ASN1Type) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Jane Doe", _type=kind)])
    assert distinguished_name(name) == DistinguishedName.parse("/CN=Jane Doe")


def test_a_certificates_relative_name_of_several_attributes_equals_its_written_forms() -> None:
    name = x509.Name(
        [
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "org")]),
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(NameOID.COMMON_NAME, "Jane"), x509.NameAttribute(NameOID.USER_ID, "jd")]
            ),
        ]
    )
    assert distinguished_name(name) == DistinguishedName.parse(name.rfc4514_string())
    assert distinguished_name(name) == DistinguishedName.parse("/DC=org/CN=Jane+UID=jd")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Jane",
        "/",
        "/Jane",
        "x/CN=Jane",
        "+CN=x",
        "/CN=" + "x" * 5000,
        "CN=Jane,",
        ",CN=Jane",
        "CN=Jane,,O=x",
        "=x",
        "/=x",
        'CN="Jane',
        'CN="Jane"x',
        "CN=#zz,O=",
        "CN=#0c0541",
        "CN=#0203010203",
        "CN=#0c",
        "CN=a\\",
        "CN=\\ff",
        r"/CN=\xff",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"distinguished name"):
        DistinguishedName.parse(text)


@given(RELATIVES)
def test_any_name_is_read_from_what_it_is_written_as(relatives: list[list[tuple[str, str]]]) -> None:
    name = DistinguishedName.of_relatives(relatives)
    assert DistinguishedName.parse(str(name)) == name
    assert DistinguishedName.of(*name.attributes) == name
    assert str(name).isprintable()


@given(RELATIVES, RELATIVES)
def test_two_names_are_written_alike_only_if_they_are_one(
    one: list[list[tuple[str, str]]], other: list[list[tuple[str, str]]]
) -> None:
    first, second = DistinguishedName.of_relatives(one), DistinguishedName.of_relatives(other)
    assert (str(first) == str(second)) == (first == second)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    NameOID.COMMON_NAME,
                    NameOID.ORGANIZATION_NAME,
                    NameOID.EMAIL_ADDRESS,
                    NameOID.USER_ID,
                    NameOID.DN_QUALIFIER,
                    NameOID.SURNAME,
                ]
            ),
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_comma_form_of_any_certificate_name_is_read(pairs: list[tuple[x509.ObjectIdentifier, str]]) -> None:
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])
    assert DistinguishedName.parse(name.rfc4514_string()) == distinguished_name(name)


@settings(max_examples=200)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    | st.text(st.sampled_from('/+=\\"#,; xCN0af'), max_size=30)
)
def test_any_text_is_a_name_or_is_refused(text: str) -> None:
    try:
        name = DistinguishedName.parse(text)
    except ValueError as problem:
        assert "distinguished name" in str(problem)  # noqa: PT017 - most texts are no names
    else:
        assert DistinguishedName.parse(str(name)) == name


def test_a_hostile_name_is_read_in_time_proportional_to_its_length() -> None:
    for text in (
        "/CN=" + "/a" * 2000,
        "/CN=" + "\\" * 4000,
        "/CN=" + "+x" * 2000,
        "CN=" + '\\"' * 2000,
        "/" + "a" * 4000,
    ):
        try:
            str(DistinguishedName.parse(text))
        except ValueError:
            continue


def test_an_endorser_can_be_an_element_of_a_set() -> None:
    endorser = Endorser(name="Jane", email="", subject=JANE, issuer=JANE, extra={"xx:a": []})
    assert {endorser} == {endorser}
