# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.catalogue.drafts import (
    APPLIANCE_COMPUTED,
    APPLIANCE_KEYS,
    LIST_COMPUTED,
    LIST_KEYS,
    ApplianceDraft,
    SelectionDraft,
)
from coppice.catalogue.keys import MAX_OWN_KEYS, read_json_value
from coppice.errors import InconsistentListError

pytestmark = pytest.mark.unit


def list_draft() -> SelectionDraft:
    return SelectionDraft(
        name="general",
        title="General",
        description="",
        source="https://x/",
        vo=None,
        endorser="jane",
        publisher="web",
        lifetime_days=28,
        last_version=None,
    )


def appliance_draft() -> ApplianceDraft:
    return ApplianceDraft(
        name="debian",
        title="Debian",
        description="",
        groups=(),
        os_kind="Linux",
        os_distribution="Debian",
        os_version="12",
        architecture="x86_64",
        hypervisor="KVM",
        comments="",
    )


def test_a_key_is_known_by_its_name_and_by_the_formats() -> None:
    draft = list_draft()
    draft.set("lifetime", "14")
    draft.set("dc:title", "  Other  ")
    draft.set("ad:swid", "7")
    assert (draft.lifetime_days, draft.title, draft.keys) == (14, "Other", {"ad:swid": "7"})
    draft.unset("swid")
    assert draft.keys == {}


def test_numbers_sizes_and_groups_are_read_from_text_and_from_json() -> None:
    draft = appliance_draft()
    draft.set("minimum_ram_mib", "512")
    draft.set("hv:core_minimum", 2)
    draft.set("minimum_disk_bytes", "1.5 GiB")
    draft.set("groups", " a , b,")
    assert (draft.minimum_ram_mib, draft.minimum_cores, draft.minimum_disk_bytes) == (512, 2, 3 * 512 * 1024**2)
    assert draft.groups == ("a", "b")
    draft.set("groups", ["c"])
    assert draft.groups == ("c",)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "٣", "1e3", "9" * 20, True, None, [], 0])
def test_what_is_no_whole_number_from_1_on_is_refused(value: object) -> None:
    with pytest.raises(InconsistentListError, match="minimum_cores"):
        appliance_draft().set("minimum_cores", value)


@pytest.mark.parametrize("value", ["", " ", "two\nlines", "bell\x07", "\u2028", "x" * 4097, "\udc80", 5, None])
def test_what_is_no_line_is_refused(value: object) -> None:
    draft = list_draft()
    with pytest.raises(InconsistentListError):
        draft.set("title", value)
    assert draft.title == "General"


@pytest.mark.parametrize("name", sorted({*LIST_COMPUTED, "coppice:set", "coppice:anything"}))
def test_what_is_computed_cannot_be_set_on_a_list(name: str) -> None:
    with pytest.raises(InconsistentListError, match="cannot be set"):
        list_draft().set(name, "x")


@pytest.mark.parametrize("name", sorted({*APPLIANCE_COMPUTED, "coppice:successor"}))
def test_what_is_computed_cannot_be_set_on_an_appliance(name: str) -> None:
    with pytest.raises(InconsistentListError, match="cannot be set"):
        appliance_draft().set(name, "x")


@pytest.mark.parametrize("name", ["", "x", "a b:c", ":x", "x:", "é:x", "x:" + "y" * 65, "1:x", "a:b\n"])
def test_a_key_of_ones_own_needs_a_prefix(name: str) -> None:
    with pytest.raises(InconsistentListError, match="there is no key"):
        list_draft().set(name, "x")


def test_keys_of_ones_own_are_bounded() -> None:
    draft = list_draft()
    for number in range(MAX_OWN_KEYS):
        draft.set(f"x:{number}", number)
    with pytest.raises(InconsistentListError, match="more than"):
        draft.set("x:more", 1)
    with pytest.raises(InconsistentListError, match="longer"):
        list_draft().set("x:y", "z" * 70_000)


def test_what_a_person_set_is_remembered_until_it_is_unset() -> None:
    draft = appliance_draft()
    draft.set("title", "Mine")
    draft.set("minimum_cores", "2")
    assert draft.edited == {"title", "minimum_cores"}
    draft.unset("title")
    draft.unset("minimum_cores")
    assert draft.edited == set()
    assert (draft.title, draft.minimum_cores) == ("Mine", None)


@pytest.mark.parametrize("text", ["", "NaN", "Infinity", "1, 2", '1}, {"a": 2', '1, "value": 2', '1, "b": 2', "tru"])
def test_what_is_no_json_value_is_refused(text: str) -> None:
    with pytest.raises(InconsistentListError):
        read_json_value(text)


@given(st.text(), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text())))
def test_whatever_is_set_is_taken_or_refused_by_one_error(key: str, value: object) -> None:
    for draft in (list_draft(), appliance_draft()):
        try:
            draft.set(key, value)
        except InconsistentListError:
            continue
        assert key in draft.keys or any(key in {each.name, each.wire} for each in (*LIST_KEYS, *APPLIANCE_KEYS))


@given(st.text())
def test_any_text_for_any_key_is_taken_or_refused_by_one_error(value: str) -> None:
    for draft, known in ((list_draft(), LIST_KEYS), (appliance_draft(), APPLIANCE_KEYS)):
        for key in known:
            try:
                draft.set(key.name, value)
            except InconsistentListError:
                continue
