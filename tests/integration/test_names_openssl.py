# SPDX-License-Identifier: Apache-2.0
"""Names as OpenSSL writes them, in each of its forms, are the certificate's name."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from coppice.formats.names import distinguished_name
from coppice.model.endorser import DistinguishedName
from coppice.testing.authority import make_key

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.threat("T16")]

VALUES = [
    "Jane Doe",
    "host/lists.example.org",
    'O\'Neil, Jane; "J" <j+d>',
    "#1 = best",
    " leading and trailing ",
    "back\\slash",
    "Jörg Müller",
    "日本",
    "C++ / C#",
]
FORMS = ["compat", "RFC2253", "RFC2253,-esc_msb", "oneline", "oneline,-esc_msb", "oneline,utf8"]


def certificate(relatives: list[list[x509.NameAttribute]]) -> x509.Certificate:
    key = make_key()
    name = x509.Name([x509.RelativeDistinguishedName(relative) for relative in relatives])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


def written(subject: x509.Certificate, form: str, directory: Path) -> str:
    (directory / "certificate.pem").write_bytes(subject.public_bytes(serialization.Encoding.PEM))
    argv = ["openssl", "x509", "-in", "certificate.pem", "-noout", "-subject", "-nameopt", form]
    completed = subprocess.run(argv, cwd=directory, capture_output=True, check=True, timeout=60)
    return completed.stdout.decode("utf-8").removeprefix("subject=").rstrip("\n")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", VALUES)
def test_a_name_is_read_from_each_form_that_openssl_writes(value: str, form: str, tmp_path: Path) -> None:
    subject = certificate(
        [
            [x509.NameAttribute(NameOID.COUNTRY_NAME, "NL")],
            [x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example")],
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "People")],
            [x509.NameAttribute(NameOID.COMMON_NAME, value)],
            [x509.NameAttribute(NameOID.EMAIL_ADDRESS, "jane@example.org")],
        ]
    )
    text = written(subject, form, tmp_path)
    assert DistinguishedName.parse(text) == distinguished_name(subject.subject), text


@pytest.mark.parametrize("form", ["RFC2253", "oneline"])
def test_a_relative_name_of_several_attributes_is_read_as_openssl_writes_it(form: str, tmp_path: Path) -> None:
    subject = certificate(
        [
            [x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "org")],
            [x509.NameAttribute(NameOID.COMMON_NAME, "Jane"), x509.NameAttribute(NameOID.USER_ID, "jd")],
        ]
    )
    text = written(subject, form, tmp_path)
    assert DistinguishedName.parse(text) == distinguished_name(subject.subject), text


# The slash form of OpenSSL writes the bytes of a BMPString one by one; nobody reads that.
KINDS = [(kind, form) for kind in (_ASN1Type.PrintableString, _ASN1Type.UTF8String) for form in FORMS]
KINDS += [(_ASN1Type.BMPString, form) for form in FORMS if form != "compat"]


@pytest.mark.parametrize(("kind", "form"), KINDS)
def test_the_string_type_does_not_matter(kind: _ASN1Type, form: str, tmp_path: Path) -> None:
    subject = certificate([[x509.NameAttribute(NameOID.COMMON_NAME, "Jane Doe", _type=kind)]])
    text = written(subject, form, tmp_path)
    assert DistinguishedName.parse(text) == DistinguishedName.of(("CN", "Jane Doe")), text


@pytest.mark.parametrize("value", ["Jane Doe", 'O\'Neil, Jane; "J" <jd>', "Robot: image lists - Jane Doe 1234", "#1"])
def test_plain_names_are_written_as_openssl_does(value: str, tmp_path: Path) -> None:
    subject = certificate(
        [[x509.NameAttribute(NameOID.ORGANIZATION_NAME, "People")], [x509.NameAttribute(NameOID.COMMON_NAME, value)]]
    )
    assert str(distinguished_name(subject.subject)) == written(subject, "compat", tmp_path)
