# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.definition.model import RebuildPolicy
from coppice.factory.model import Package
from coppice.factory.staleness import (
    LAST_RETRY_SECONDS,
    Choice,
    Evidence,
    FailedTry,
    PackageUpdate,
    Repository,
    Trigger,
    are_covered,
    decide,
    find_updates,
)

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
PLAIN = PackageUpdate(name="jq", installed="1.6-2", available="1.6-3", is_security=False)
SECURITY = PackageUpdate(name="openssl", installed="3.0.1", available="3.0.2", is_security=True)


def evidence(**other):
    known = {"built_at": NOW - DAY, "policy": RebuildPolicy(), "updates": (), "definition": "d"}
    return Evidence(**{**known, **other})


def failed(count=1, at=NOW, state="", code="boot-test-failed"):
    return FailedTry(count=count, at=at, state=state, code=code, message="no")


def package(name, version, **other):
    return Package(name=name, version=version, architecture="amd64", **other)


def repository(name="main", *, security=False, **versions):
    named = {each.replace("_", "-"): version for each, version in versions.items()}
    return Repository(name=name, is_security=security, made_at=NOW, versions=named)


def test_what_has_not_changed_is_fresh():
    found = decide(evidence(), NOW)
    assert (found.choice, found.triggers, found.due_at) == (Choice.FRESH, (), None)


def test_a_security_update_does_not_wait():
    found = decide(evidence(updates=(PLAIN, SECURITY)), NOW)
    assert found.choice is Choice.REBUILD
    assert found.triggers == (Trigger.SECURITY, Trigger.UPDATES)
    assert "openssl" in found.reasons[0]


@pytest.mark.parametrize(
    ("change", "trigger"),
    [
        ({"updates": (PLAIN,)}, Trigger.UPDATES),
        ({"changed_keys": ("packages",)}, Trigger.DEFINITION),
        ({"parent": "base was built anew"}, Trigger.PARENT),
    ],
)
def test_other_changes_wait_until_the_interval_since_the_last_build_is_over(change, trigger):
    found = decide(evidence(**change), NOW)
    assert (found.choice, found.triggers) == (Choice.LATER, (trigger,))
    assert found.due_at == NOW + 6 * DAY
    assert decide(evidence(**change), NOW + 6 * DAY).choice is Choice.REBUILD
    assert decide(evidence(**change), NOW, waits=False).choice is Choice.REBUILD


def test_a_version_whose_date_nears_is_built_anew_whatever_changed():
    near = evidence(expires=NOW + 14 * DAY)
    assert decide(near, NOW).triggers == (Trigger.EXPIRY,)
    assert decide(near, NOW).choice is Choice.REBUILD
    assert decide(evidence(expires=NOW + 14 * DAY + timedelta(seconds=1)), NOW).choice is Choice.FRESH
    assert decide(evidence(expires=NOW - DAY), NOW).choice is Choice.REBUILD


def test_a_version_that_is_endorsed_for_less_than_the_time_before_its_end_is_not_due_at_once():
    short = {"validity_days": 10, "built_at": NOW}
    assert decide(evidence(**short, expires=NOW + 10 * DAY), NOW).choice is Choice.FRESH
    assert decide(evidence(**short, expires=NOW + 5 * DAY), NOW).choice is Choice.REBUILD


@pytest.mark.parametrize(
    "end",
    [
        {"discontinued_on": NOW + 100 * DAY},
        {"discontinued_on": NOW - DAY},
        {"end_of_life": NOW.date()},
        {"end_of_life": date(2020, 1, 1)},
    ],
)
def test_nothing_is_built_past_the_end_of_an_appliance_or_of_its_system(end):
    found = decide(evidence(updates=(SECURITY,), expires=NOW, **end), NOW, waits=False)
    assert found.choice is Choice.NEVER
    assert len(found.reasons) == 1


def test_until_its_end_of_life_a_system_is_built_anew():
    assert decide(evidence(updates=(SECURITY,), end_of_life=date(2026, 11, 11)), NOW).choice is Choice.REBUILD


def test_what_could_not_be_found_out_is_never_fresh():
    assert decide(evidence(updates=None), NOW).choice is Choice.UNKNOWN
    silent = decide(evidence(updates=None, unknown=("the mirror is silent",)), NOW)
    assert (silent.choice, silent.reasons) == (Choice.UNKNOWN, ("the mirror is silent",))
    assert decide(evidence(unknown=("its definition is gone",)), NOW).choice is Choice.UNKNOWN


def test_what_is_known_counts_though_something_else_is_not_known():
    found = decide(evidence(updates=None, unknown=("the mirror is silent",), expires=NOW), NOW)
    assert found.choice is Choice.REBUILD
    assert "the mirror is silent" in found.reasons


def test_an_appliance_that_says_so_is_not_built_anew_by_itself():
    still = evidence(policy=RebuildPolicy(enabled=False), updates=(SECURITY,))
    assert decide(still, NOW).choice is Choice.NEVER
    assert decide(still, NOW).triggers == (Trigger.SECURITY,)
    assert decide(still, NOW, waits=False).choice is Choice.REBUILD


def test_what_failed_is_tried_again_later_each_time_and_at_once_when_something_changed():
    asked = evidence(updates=(SECURITY,))
    first = replace(asked, failed=failed(state=asked.state))
    assert decide(first, NOW + timedelta(minutes=59)).choice is Choice.LATER
    assert decide(first, NOW + timedelta(minutes=60)).choice is Choice.REBUILD
    fourth = replace(asked, failed=failed(count=4, state=asked.state))
    assert decide(fourth, NOW).due_at == NOW + timedelta(hours=8)
    assert "4 times" in decide(fourth, NOW).reasons[-1]
    more = replace(fourth, updates=(SECURITY, PLAIN))
    assert decide(more, NOW).choice is Choice.REBUILD
    assert decide(fourth, NOW, waits=False).choice is Choice.REBUILD


def test_a_build_that_changed_nothing_is_not_tried_again_until_the_interval_is_over():
    asked = evidence(updates=(SECURITY,), built_at=NOW - 30 * DAY)
    tried = replace(asked, tried_at=NOW, tried_state=asked.state)
    assert (decide(tried, NOW).choice, decide(tried, NOW).due_at) == (Choice.LATER, NOW + 7 * DAY)
    assert decide(replace(tried, updates=(SECURITY, PLAIN)), NOW).choice is Choice.REBUILD
    assert decide(tried, NOW + 7 * DAY).choice is Choice.REBUILD


@given(st.integers(1, 10_000))
def test_a_build_that_fails_for_ever_is_tried_at_least_once_a_week(count):
    assert timedelta(0) < failed(count=count).next_at() - NOW <= timedelta(seconds=LAST_RETRY_SECONDS)


@given(
    st.lists(st.sampled_from([PLAIN, SECURITY]), unique=True),
    st.booleans(),
    st.sampled_from([None, NOW, NOW + 15 * DAY]),
    st.booleans(),
)
def test_more_evidence_of_change_never_makes_an_appliance_fresher(updates, parent, expires, unknown):
    order = [Choice.FRESH, Choice.UNKNOWN, Choice.LATER, Choice.REBUILD]
    known = evidence(
        updates=tuple(updates),
        parent="base changed" if parent else "",
        expires=expires,
        unknown=("something",) if unknown else (),
    )
    before = decide(known, NOW).choice
    after = decide(replace(known, updates=(*known.updates, replace(SECURITY, name="bash"))), NOW).choice
    assert order.index(after) >= order.index(before)
    assert (before is Choice.FRESH) == (not updates and not parent and expires != NOW and not unknown)


def test_an_update_is_a_higher_version_in_any_repository():
    installed = [package("bash", "5.2-1"), package("jq", "1.6-2"), package("zlib1g", "1:1.2")]
    found = find_updates(
        installed, [repository(bash="5.2-1", jq="1.6-1", zlib1g="1:1.3"), repository("u", bash="5.10-1")]
    )
    assert [(each.name, each.installed, each.available, each.is_security) for each in found] == [
        ("bash", "5.2-1", "5.10-1", False),
        ("zlib1g", "1:1.2", "1:1.3", False),
    ]


def test_a_security_update_is_one_though_another_repository_has_a_higher_version():
    main = repository(openssl="3.0.9")
    found = find_updates([package("openssl", "3.0.1")], [main, repository("s", security=True, openssl="3.0.2")])
    assert [(each.available, each.is_security) for each in found] == [("3.0.9", True)]


def test_what_the_security_archive_has_and_the_image_has_too_is_no_update():
    found = find_updates([package("openssl", "3.0.2")], [repository("s", security=True, openssl="3.0.2")])
    assert found == ()


def test_how_grave_security_updates_are_and_of_how_many_that_is_not_said_is_in_the_reasons():
    grave = replace(SECURITY, severity="critical")
    said = decide(evidence(updates=(replace(SECURITY, name="vim", severity="low"), grave)), NOW).reasons
    assert said == ("2 packages with security updates, up to critical: vim, openssl",)
    silent = evidence(updates=(PLAIN, replace(PLAIN, name="bash", is_security=None)))
    assert (silent.security, silent.undeclared) == (0, 1)
    found = decide(silent, NOW)
    assert (found.choice, found.triggers) == (Choice.LATER, (Trigger.UPDATES,))
    assert "of 1 it is not said whether they are security updates" in found.reasons[0]


def test_a_package_of_two_architectures_is_one_update():
    both = [package("libc6", "2.36-1"), replace(package("libc6", "2.36-1"), architecture="i386")]
    assert len(find_updates(both, [repository(libc6="2.36-2")])) == 1


def test_repositories_that_do_not_have_most_of_the_packages_do_not_cover_them():
    installed = [package("a", "1"), package("b", "1"), package("c", "1")]
    assert not are_covered(installed, [repository(a="1")])
    assert are_covered(installed, [repository(a="1"), repository("u", b="1")])
    assert not are_covered(installed, [])
    assert not are_covered([package("a", "1", manager="rpm")], [repository(a="2")])


def test_packages_of_another_kind_have_no_updates_there():
    assert find_updates([package("a", "1", manager="rpm")], [repository(a="2")]) == ()
