# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.cloud.model import ImageState
from coppice.cloud.properties import (
    EXPIRES,
    PIN,
    SITE,
    clean,
    from_properties,
    metadata_digest,
    metadata_of,
    to_properties,
)
from coppice.errors import CloudError
from coppice.testing.desired import SITE as OURS
from coppice.testing.desired import desired_image, marker_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("state", list(ImageState))
@pytest.mark.parametrize("pin", [None, "1.0"])
def test_a_marker_survives_the_way_through_properties(state: ImageState, pin: str | None):
    marker = marker_of(desired_image(), state=state, pin=pin)
    assert from_properties({**to_properties(marker), "owner": "x"}, OURS) == marker


def test_what_is_none_has_no_property():
    properties = to_properties(replace(marker_of(desired_image()), expires=None))
    assert EXPIRES not in properties
    assert PIN not in properties
    marker = from_properties(properties, OURS)
    assert marker is not None
    assert marker.expires is None


@pytest.mark.parametrize("site", ["another", "", "Test-Site", None])
def test_without_this_sites_marker_an_image_is_not_ours(site: str | None):
    properties = to_properties(marker_of(desired_image()))
    del properties[SITE]
    if site is not None:
        properties[SITE] = site
    assert from_properties(properties, OURS) is None


@pytest.mark.parametrize("key", sorted(to_properties(marker_of(desired_image())).keys() - {SITE, EXPIRES}))
@pytest.mark.parametrize("value", [None, ""])
def test_a_marker_of_ours_that_lacks_something_is_an_error_that_names_the_image(key: str, value: str | None):
    properties = to_properties(marker_of(desired_image()))
    del properties[key]
    if value is not None:
        properties[key] = value
    with pytest.raises(CloudError, match=f"of image-7 is damaged: {key}"):
        from_properties(properties, OURS, name="image-7")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("coppice_digest", "sha512:00"),
        ("coppice_state", "ripe"),
        ("coppice_state_since", "yesterday"),
        ("coppice_state_since", "2026-11-01T12:00:00"),
        ("coppice_expires", ""),
        ("coppice_list_version", "!"),
        ("coppice_version", "x" * 1000),
        ("coppice_pin", "~"),
    ],
)
def test_a_damaged_value_is_an_error_and_never_guessed(key: str, value: str):
    with pytest.raises(CloudError):
        from_properties({**to_properties(marker_of(desired_image())), key: value}, OURS)


def test_metadata_says_what_the_list_says_and_leaves_out_what_it_does_not():
    metadata = metadata_of(desired_image(title="Debian 12"))
    assert metadata["title"] == "Debian 12"
    assert metadata["architecture"] == "x86_64"
    assert metadata["minimum_ram_mib"] == "512"
    assert metadata["groups"] == "general"
    assert "mpuri" not in metadata
    assert "minimum_disk_bytes" not in metadata
    assert "comments" not in metadata


@given(st.text(max_size=300), st.integers(min_value=0, max_value=50))
def test_a_cleaned_value_is_short_and_shows_nothing_hidden(text: str, limit: int):
    cleaned = clean(text, limit)
    assert len(cleaned) <= limit
    assert cleaned == clean(cleaned, limit)
    assert cleaned.isprintable()


def test_the_order_of_keys_does_not_change_the_digest_and_any_value_does():
    one = {"a": "1", "b": "2"}
    assert metadata_digest(one) == metadata_digest(dict(reversed(one.items())))
    assert metadata_digest(one) != metadata_digest({"a": "1", "b": "3"})
    assert metadata_digest(one) != metadata_digest({"a": "1"})
