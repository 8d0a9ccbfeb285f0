# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from coppice.digests import new_digest
from coppice.model.checksum import Checksum
from coppice.model.identifiers import is_name, is_uuid
from coppice.model.validity import Validity

pytestmark = pytest.mark.unit


def test_a_checksum_survives_being_written_and_read() -> None:
    checksum = Checksum.of(b"bytes")
    assert Checksum.parse(str(checksum)) == checksum
    assert checksum.matches(Checksum.parse(str(checksum).upper().replace("SHA512", "sha512")))
    assert not checksum.matches(Checksum.of(b"other bytes"))
    assert not checksum.matches(Checksum.of(b"bytes", "sha256"))


def test_blake3_is_computed_as_its_specification_says() -> None:
    of_nothing = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert new_digest("blake3").hexdigest() == of_nothing
    digest = new_digest("blake3")
    digest.update(memoryview(b"by"))
    digest.update(b"tes")
    whole = new_digest("blake3")
    whole.update(b"bytes")
    assert digest.hexdigest() == whole.hexdigest() != of_nothing
    assert Checksum.parse(f"blake3:{of_nothing}").algorithm == "blake3"


def test_an_unknown_algorithm_is_no_digest() -> None:
    with pytest.raises(ValueError, match="unsupported"):
        new_digest("blake9")


@pytest.mark.parametrize(
    "text", ["", "sha512:", "sha512:xyz", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:" + "0" * 63]
)
def test_what_is_no_checksum_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"checksum|digest"):
        Checksum.parse(text)


@pytest.mark.threat("T78")
@pytest.mark.parametrize("text", ["../../x", "/etc/x", ".", "a" * 300, "", "-x", "x-", "A", "a b", "a\n", "é"])
def test_what_could_harm_as_a_file_name_is_no_name(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize("text", ["debian-12", "a", "x.y_z", "9"])
def test_plain_names_are_names(text: str) -> None:
    assert is_name(text)


def test_only_the_usual_form_is_a_uuid() -> None:
    assert is_uuid("2f1c0d3e-6f4a-4a39-9b0e-4d1a7c0b9f11")
    assert is_uuid("2F1C0D3E-6F4A-4A39-9B0E-4D1A7C0B9F11")
    assert not is_uuid("{2f1c0d3e-6f4a-4a39-9b0e-4d1a7c0b9f11}")
    assert not is_uuid("2f1c0d3e6f4a4a399b0e4d1a7c0b9f11")
    assert not is_uuid("debian-12")


def test_a_validity_ends_at_its_expiry_and_needs_time_zones() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    validity = Validity(created=start, expires=start + timedelta(days=1))
    assert not validity.is_expired(start + timedelta(hours=23, minutes=59))
    assert validity.is_expired(start + timedelta(days=1))
    with pytest.raises(ValueError, match="aware"):
        Validity(created=start.replace(tzinfo=None), expires=start)
