# SPDX-License-Identifier: Apache-2.0
"""Which RPM packages have updates, by RPM's rules."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from coppice.factory.model import Package
from coppice.factory.rpm_staleness import RpmRepository, cover_rpms, find_rpm_updates
from coppice.formats.rpm_advisories import SecurityFix
from coppice.formats.rpm_index import Obsoleted, RpmOffer

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)


def installed(name, version, architecture="x86_64"):
    return Package(name=name, version=version, architecture=architecture, manager="rpm")


def offer(name, version, architecture="x86_64", *obsoletes):
    return RpmOffer(name=name, version=version, architecture=architecture, obsoletes=obsoletes)


def fix(name, version, severity="", architecture="x86_64"):
    return SecurityFix(name=name, version=version, architecture=architecture, severity=severity)


def repository(*offers, fixes=(), tells=True, security=False):
    def by_name(things):
        return {each.name: tuple(one for one in things if one.name == each.name) for each in things}

    return RpmRepository(
        name="baseos",
        is_security=security,
        tells_security=tells,
        made_at=NOW,
        offers=by_name(offers),
        fixes=by_name(fixes),
    )


def found(packages, *repositories):
    updates = find_rpm_updates(packages, repositories, "x86_64").updates
    return {each.name: (each.available, each.is_security) for each in updates}


def test_an_update_is_a_higher_version_by_rpms_rules_in_any_repository():
    packages = [
        installed("bash", "5.1.8-9.el9"),
        installed("vim", "2:8.2-20.el9"),
        installed("gcc", "13.0~rc1-1"),
        installed("curl", "7.76.1-29.el9"),
    ]
    first = repository(offer("bash", "5.1.8-10.el9"), offer("vim", "9.9-1"), offer("gcc", "13.0-1"))
    second = repository(offer("bash", "5.1.8-10.el9_1"), offer("curl", "7.76.1-29.el9"))
    assert found(packages, first, second) == {"bash": ("5.1.8-10.el9_1", False), "gcc": ("13.0-1", False)}


def test_what_may_take_the_place_of_a_package_in_an_odd_way_leaves_that_package_alone_unknown():
    odd = Obsoleted(name="old", flag="?", version="")
    packages = [installed("old", "1-1"), installed("bash", "5-1")]
    there = find_rpm_updates(packages, [repository(offer("new", "1-1", "noarch", odd), offer("bash", "6-1"))], "x86_64")
    assert ([each.name for each in there.updates], there.odd) == (["bash"], ("old",))
    # It does not matter what is for another processor, or goes with it already.
    for taker in (offer("new", "1-1", "aarch64", odd), offer("bash", "5-1", "noarch", odd)):
        assert find_rpm_updates(packages, [repository(taker)], "x86_64").odd == ()
    assert find_rpm_updates(packages[1:], [repository(offer("new", "1-1", "noarch", odd))], "x86_64").odd == ()


def test_what_was_put_back_by_the_repository_is_no_update():
    assert found([installed("bash", "5.2-1")], repository(offer("bash", "5.1-1"))) == {}


def test_an_update_is_for_the_processor_of_what_is_installed_or_for_all():
    there = repository(
        offer("a", "2-1", "i686"), offer("b", "2-1", "noarch"), offer("c", "2-1"), offer("d", "2-1", "aarch64")
    )
    packages = [
        installed("a", "1-1"),
        installed("b", "1-1"),
        installed("c", "1-1", "noarch"),
        installed("d", "1-1", "noarch"),
    ]
    assert set(found(packages, there)) == {"b", "c"}
    assert set(found([installed("a", "1-1", "i686")], there)) == {"a"}


def test_a_package_of_two_architectures_is_one_update_and_is_for_security_when_one_of_them_is():
    there = repository(offer("glibc", "2-2"), offer("glibc", "2-2", "i686"), fixes=[fix("glibc", "2-2", "critical")])
    both = [installed("glibc", "2-1"), installed("glibc", "2-1", "i686")]
    assert found(both, there) == {"glibc": ("2-2", True)}
    assert found(both[::-1], there) == {"glibc": ("2-2", True)}


def test_of_kernels_that_lie_side_by_side_the_newest_counts():
    both = [installed("kernel-core", "5.14.0-427.el9"), installed("kernel-core", "5.14.0-503.el9")]
    assert found(both, repository(offer("kernel-core", "5.14.0-503.el9"))) == {}
    assert found(both, repository(offer("kernel-core", "5.14.0-503.11.1.el9"))) == {
        "kernel-core": ("5.14.0-503.11.1.el9", False)
    }


def test_a_security_update_closes_a_hole_between_what_is_installed_and_what_there_is():
    there = repository(
        offer("openssl", "3.0.7-28"),
        offer("bash", "5-9"),
        offer("sudo", "1-2"),
        offer("vim", "1-2"),
        fixes=[
            fix("openssl", "3.0.7-25", "moderate"),
            fix("openssl", "3.0.7-27", "important"),
            fix("bash", "5-1", "critical"),
            fix("sudo", "1-3", "critical"),
            fix("vim", "1-2", "critical", "i686"),
        ],
    )
    packages = [installed("openssl", "3.0.7-24"), *(installed(name, "5-1") for name in ("bash",))]
    packages += [installed("sudo", "1-1"), installed("vim", "1-1")]
    findings = find_rpm_updates(packages, [there], "x86_64")
    assert [(each.name, each.is_security, each.severity) for each in findings.updates] == [
        ("bash", False, ""),
        ("openssl", True, "important"),
        # A fix that no repository has cannot be had by building anew; that of another processor is not its own.
        ("sudo", False, ""),
        ("vim", False, ""),
    ]


def test_the_fix_may_be_told_by_another_repository_than_the_one_that_has_the_package():
    told = repository(fixes=[fix("bash", "5-2")])
    assert found([installed("bash", "5-1")], repository(offer("bash", "5-2"), tells=False), told) == {
        "bash": ("5-2", True)
    }


def test_where_a_repository_does_not_say_which_are_security_updates_that_is_not_known():
    silent = repository(offer("bash", "5-2"), tells=False)
    assert found([installed("bash", "5-1")], silent) == {"bash": ("5-2", None)}
    named = repository(offer("bash", "5-2"), tells=False, security=True)
    assert found([installed("bash", "5-1")], named) == {"bash": ("5-2", True)}
    assert found([installed("bash", "5-1")], silent, repository(offer("bash", "5-2"))) == {"bash": ("5-2", None)}


def test_what_takes_the_place_of_a_package_is_an_update_of_it():
    taker = offer("dnf5", "5.2-1", "x86_64", Obsoleted(name="dnf", flag="LT", version="5"))
    assert found([installed("dnf", "4.14-1", "noarch")], repository(taker)) == {"dnf": ("dnf5 5.2-1", False)}
    assert found([installed("dnf", "5-1", "noarch")], repository(taker)) == {}
    # Both are there: they have been found to go together.
    assert found([installed("dnf", "4-1", "noarch"), installed("dnf5", "5.2-1")], repository(taker)) == {}
    with_fix = repository(taker, fixes=[fix("dnf5", "5.2-1", "low")])
    assert found([installed("dnf", "4-1", "noarch")], with_fix) == {"dnf": ("dnf5 5.2-1", True)}
    other = repository(taker, fixes=[fix("dnf5", "5.1-1", "low")])
    assert found([installed("dnf", "4-1", "noarch")], other) == {"dnf": ("dnf5 5.2-1", False)}
    elsewhere = offer("dnf5", "5.2-1", "aarch64", Obsoleted(name="dnf", flag="", version=""))
    assert found([installed("dnf", "4-1", "noarch")], repository(elsewhere)) == {}


def test_of_modules_it_is_only_known_that_there_is_nothing_higher():
    old, new = "1:18.1-1.module+el9.2.0+1", "1:20.9-1.module+el9.4.0+2"
    there = repository(offer("nodejs", new), fixes=[fix("nodejs", new, "critical")])
    undecided = find_rpm_updates([installed("nodejs", old)], [there], "x86_64")
    assert (undecided.updates, undecided.undecided) == ((), ("nodejs",))
    same = find_rpm_updates([installed("nodejs", new)], [there], "x86_64")
    assert (same.updates, same.undecided) == ((), ())
    # What is of no module takes no updates from one.
    plain = find_rpm_updates([installed("nodejs", "1:16.1-1.el9")], [there], "x86_64")
    assert (plain.updates, plain.undecided) == ((), ())
    both = repository(offer("nodejs", new), offer("nodejs", "1:16.2-1.el9"), fixes=[fix("nodejs", new)])
    assert found([installed("nodejs", "1:16.1-1.el9")], both) == {"nodejs": ("1:16.2-1.el9", False)}


def test_an_installed_version_that_is_none_is_told_and_hides_no_other():
    findings = find_rpm_updates(
        [installed("odd", "a b"), installed("bash", "1-1")], [repository(offer("bash", "2-1"))], "x86_64"
    )
    assert findings.unreadable == ("odd",)
    assert [each.name for each in findings.updates] == ["bash"]


def test_packages_of_another_kind_do_not_count():
    deb = Package(name="bash", version="1-1", architecture="amd64")
    assert found([deb], repository(offer("bash", "2-1"))) == {}
    assert not cover_rpms([deb], [repository(offer("bash", "2-1"))])


def test_repositories_that_do_not_have_most_of_the_packages_do_not_cover_them():
    packages = [installed("a", "1-1"), installed("b", "1-1"), installed("c", "1-1")]
    assert not cover_rpms(packages, [repository(offer("a", "1-1"))])
    assert cover_rpms(packages, [repository(offer("a", "1-1")), repository(offer("b", "1-1"))])
    assert not cover_rpms(packages, [])
