# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from coppice.cloud.model import Audience, Desired, Visibility
from coppice.cloud.plan import plan
from coppice.cloud.steps import ActionKind
from coppice.errors import DeletionCapError, SettingsError
from coppice.model.operating_system import OperatingSystem
from coppice.settings.clouds import CloudSettings, ImageSettings, VoSettings
from coppice.settings.load import load_settings
from coppice.subscription.selection import Wish
from coppice.testing.desired import (
    NOW,
    desired_image,
    desired_list,
    image_identifier,
    list_identifier,
    marker_of,
    registered_image,
)
from coppice.workflows.mapping import CloudMapping, desired_for, policy_for, shared_names, unused_settings

pytestmark = pytest.mark.unit


def cloud(**said) -> CloudSettings:
    return CloudSettings(name="main", driver="memory", site="test-site", formats=(), options={}, **said)


def image(name="debian", version="1", *, vo="vo.example.org", **said):
    return replace(desired_image(name, version, **said), vo=vo)


def only(cloud_settings, *images):
    wanted = desired_for(cloud_settings, Desired(lists=(desired_list(*images),)))
    return wanted.lists[0]


def shown(cloud_settings, *images):
    return [each.presentation for each in only(cloud_settings, *images).images]


def test_a_cloud_without_mapping_takes_everything_under_its_title():
    (found,) = shown(cloud(), image())
    assert found.name == "debian image"
    assert found.facts["os_distribution"] == "Debian"
    assert (found.properties, found.audience, found.datastores) == ({}, Audience(), ())


def test_what_is_known_of_unsubscribed_and_distrusted_lists_is_left_as_it_is():
    desired = Desired(lists=(), unsubscribed=frozenset({list_identifier("x")}), distrusted=frozenset({"y"}))
    assert desired_for(cloud(include="os = Debian"), desired) == desired


@pytest.mark.parametrize(
    ("said", "wish"),
    [
        ({"include": "os = Debian"}, Wish.WANTED),
        ({"include": "os = Ubuntu"}, Wish.UNWANTED),
        ({"exclude": "os = Debian"}, Wish.UNWANTED),
        ({"exclude": "os = Ubuntu"}, Wish.WANTED),
        ({"include": "os = Debian", "exclude": "title ~ '*debian*'"}, Wish.UNWANTED),
        ({"include": "expires > 2026-12-01"}, Wish.UNKNOWN),
        ({"exclude": "expires > 2026-12-01"}, Wish.UNKNOWN),
        ({"include": "os = Ubuntu", "exclude": "expires > 2026-12-01"}, Wish.UNWANTED),
        ({"include": "expires > 2026-12-01", "exclude": "os = Debian"}, Wish.UNWANTED),
        ({"only_vos": ("VO.example.org",)}, Wish.WANTED),
        ({"only_vos": ("other.example.org",)}, Wish.UNWANTED),
        ({"only_vos": ("other.example.org",), "include": "expires > 2026-12-01"}, Wish.UNWANTED),
        ({"include": "vo = vo.example.org"}, Wish.WANTED),
    ],
)
def test_a_cloud_takes_what_its_conditions_leave(said, wish):
    assert CloudMapping(cloud(**said)).wish(image()) is wish


def test_an_image_of_no_vo_is_not_for_a_cloud_that_takes_some_vos_only():
    assert CloudMapping(cloud(only_vos=("a",))).wish(image(vo=None)) is Wish.UNWANTED


def test_an_image_of_which_it_cannot_be_told_whether_it_is_taken_stays_as_it_is():
    found = only(cloud(include="expires > 2026-12-01"), image())
    assert found.images == ()
    assert found.unknown == {image_identifier("debian")}


def test_an_image_that_a_cloud_leaves_out_from_now_on_is_withdrawn_there():
    images = [image(name) for name in ("debian", "alma", "ubuntu")]
    there = [registered_image(each) for each in images]
    wanted = desired_for(cloud(exclude="title ~ 'alma*'"), Desired(lists=(desired_list(*images),)))
    made = plan(wanted, there, policy_for_file("")(), NOW, "main")
    withdrawn = [each.key for each in made.actions if each.kind is ActionKind.CHANGE_STATE]
    assert withdrawn == [images[1].key]


def test_a_cloud_that_leaves_out_nearly_everything_is_held_for_confirmation():
    images = [image(name) for name in ("debian", "alma", "ubuntu")]
    there = [registered_image(each) for each in images]
    wanted = desired_for(cloud(only_vos=("other",)), Desired(lists=(desired_list(*images),)))
    made = plan(wanted, there, policy_for_file("")(), NOW, "main")
    assert {type(each.error) for each in made.held} == {DeletionCapError}
    assert made.actions == ()


def test_a_name_is_filled_in_from_the_template_of_image_vo_and_cloud_in_this_order():
    settings = cloud(
        image_name="{title}",
        vos={"vo.example.org": VoSettings(name="{title} for {vo}")},
        images={image_identifier("alma"): ImageSettings(name="{os_distribution} {version} at {site}")},
    )
    names = [each.name for each in shown(settings, image(), image("alma"), image("ubuntu", vo="other"))]
    assert names == ["debian image for vo.example.org", "Debian 1 at test-site", "ubuntu image"]


@pytest.mark.threat("T75")
@pytest.mark.parametrize(
    "title",
    [
        "{site}",
        "{{site}}",
        "{title}",
        "{0.__class__.__mro__}",
        "{title!r:>100000000}",
        "%(site)s %s",
        "${site} $HOME",
        "{{ 7 * 7 }} {% raw %}",
        "#{7*7} <%= 7*7 %>",
        "\\1 \\g<0>",
    ],
)
def test_a_title_that_looks_like_a_template_stands_in_the_name_as_it_is(title):
    (found,) = shown(cloud(image_name="x {title} y {site}"), image(title=title))
    assert found.name == f"x {title} y test-site"


@pytest.mark.threat("T75")
def test_what_is_filled_in_is_cleaned_and_bounded():
    hostile = "a\x00b\r\nc\u202ed\u200b \U0001f600" + "x" * 100_000
    (found,) = shown(cloud(image_name="{title} {title}"), image(title=hostile))
    assert len(found.name) == 200
    assert found.name.startswith("a b cd \U0001f600xxx")


def test_a_name_that_nothing_is_left_of_is_the_title():
    (found,) = shown(cloud(image_name="{vo}"), image(vo=None))
    assert found.name == "debian image"
    (found,) = shown(cloud(image_name="{vo}"), image(vo=None, title="\u200b"))
    assert found.name == "image"


def test_two_images_of_a_list_never_have_the_same_name():
    arm = image("arm", title="Debian")
    system = OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="aarch64")
    arm = replace(arm, listed=replace(arm.listed, operating_system=system))
    assert [each.name for each in shown(cloud(), image("x86", title="Debian"), arm)] == [
        "Debian (x86_64)",
        "Debian (aarch64)",
    ]
    twins = [image("one", title="Debian"), image("two", title="Debian")]
    assert [each.name for each in shown(cloud(), *twins)] == [
        f"Debian ({each.key.image_identifier[:8]})" for each in twins
    ]


def test_images_whose_identifiers_begin_alike_have_names_of_their_own_too():
    twins = [
        replace(each, key=replace(each.key, image_identifier=f"registry/path:{name}"))
        for name in ("a", "b")
        for each in [image(name, title="D" * 300)]
    ]
    names = [each.name for each in shown(cloud(), *twins)]
    assert len(set(names)) == 2
    assert all(len(name) <= 200 for name in names)


def test_a_title_that_copies_the_name_of_a_twin_gives_no_second_image_of_that_name():
    twins = [image("one", title="Debian"), image("two", title="Debian")]
    copy = image("three", title=f"Debian ({twins[0].key.image_identifier[:8]})")
    names = [each.name for each in shown(cloud(), *twins, copy)]
    assert len(set(names)) == 3


def test_lists_do_not_rename_one_another_s_images_and_names_that_they_share_are_told():
    lists = (desired_list(image(of_list="a")), desired_list(image(of_list="b"), name="b"))
    wanted = desired_for(cloud(), Desired(lists=lists))
    assert {each.presentation.name for known in wanted.lists for each in known.images} == {"debian image"}
    (shared,) = shared_names(wanted)
    assert shared.name == "debian image"
    assert {each.key.list_identifier for each in shared.images} == {list_identifier("a"), list_identifier("b")}
    apart = desired_for(cloud(image_name="{title} {list}"), Desired(lists=lists))
    assert shared_names(apart) == ()


def test_properties_of_the_image_go_before_those_of_its_vo_and_of_the_cloud():
    settings = cloud(
        properties={"a": "cloud", "b": "cloud", "c": "cloud"},
        vos={"vo.example.org": VoSettings(properties={"b": "vo", "c": "vo"})},
        images={image_identifier("debian"): ImageSettings(properties={"c": "image"})},
    )
    (found,) = shown(settings, image())
    assert found.properties == {"a": "cloud", "b": "vo", "c": "image"}


@pytest.mark.parametrize(
    ("general", "of_vo", "audience"),
    [
        (None, {}, Audience()),
        ("public", {}, Audience(visibility=Visibility.PUBLIC)),
        ("public", {"visibility": "private"}, Audience(visibility=Visibility.PRIVATE)),
        ("public", {"members": ("p2", "p1", "p2")}, Audience(visibility=Visibility.SHARED, members=("p1", "p2"))),
        (None, {"members": ("p",)}, Audience(visibility=Visibility.SHARED, members=("p",))),
        (
            None,
            {"members": ("p",), "visibility": "community"},
            Audience(visibility=Visibility.COMMUNITY, members=("p",)),
        ),
    ],
)
def test_the_audience_is_what_its_vo_says_and_members_are_never_opened_to_all(general, of_vo, audience):
    (found,) = shown(cloud(visibility=general, vos={"VO.Example.Org": VoSettings(**of_vo)}), image())
    assert found.audience == audience


def test_datastores_are_those_of_the_vo():
    (found,) = shown(cloud(vos={"vo.example.org": VoSettings(datastores=("100", "101"))}), image())
    assert found.datastores == ("100", "101")


@pytest.mark.parametrize(
    ("said", "setting"),
    [
        ({"image_name": "{titel}"}, "clouds.main.image_name"),
        ({"include": "os ="}, "clouds.main.include"),
        ({"exclude": "colour = red"}, "clouds.main.exclude"),
        ({"vos": {"a": VoSettings(name="{")}}, "clouds.main.vos.a.name"),
        ({"images": {"i": ImageSettings(name="plain")}}, "clouds.main.images.i.name"),
        ({"vos": {"A": VoSettings(), "a": VoSettings()}}, "clouds.main.vos"),
        ({"vos": {"a": VoSettings(members=("p",), visibility="private")}}, "clouds.main.vos.a.visibility"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(said, setting):
    with pytest.raises(SettingsError) as caught:
        desired_for(cloud(**said), Desired(lists=()))
    assert caught.value.context["setting"] == setting
    assert setting.rpartition(".")[0] in caught.value.message
    assert caught.value.resolution


def policy_for_file(text):
    settings = load_settings(
        config=None, environ={"HOME": "/nowhere"}, options={}, system_file=Path("/nowhere/coppice.toml")
    )
    clouds = {"main": text} if isinstance(text, CloudSettings) else {}
    return lambda **said: policy_for(replace(settings, clouds=clouds), "main", **said)


def test_the_policy_of_a_cloud_that_says_nothing_is_the_plan_s():
    policy = policy_for_file(cloud())()
    assert (policy.grace, policy.keep_versions, policy.maximum_withdrawn_share) == (timedelta(days=7), 0, 0.5)
    assert policy.allow_withdrawals is False
    assert policy_for_file("")(allow_withdrawals=True).allow_withdrawals is True


@pytest.mark.parametrize(
    ("name", "vo", "kept"),
    [
        ("ubuntu", None, (1, 2)),
        ("ubuntu", "other", (1, 2)),
        ("ubuntu", "VO", (3, 2)),
        ("debian", None, (1, 9)),
        ("debian", "other", (1, 9)),
        ("debian", "vo", (3, 9)),
        ("alma", "vo", (0, 4)),
        ("alma", "strict", (0, 0)),
        ("ubuntu", "strict", (1, 0)),
    ],
)
def test_how_long_is_kept_is_said_of_the_image_then_its_vo_then_the_cloud(name, vo, kept):
    settings = cloud(
        grace_days=1.0,
        keep_versions=2,
        vos={"Vo": VoSettings(grace_days=3.0), "strict": VoSettings(keep_versions=0)},
        images={
            image_identifier("debian"): ImageSettings(keep_versions=9),
            image_identifier("alma"): ImageSettings(grace_days=0.0, keep_versions=4 if vo == "vo" else 0),
        },
    )
    retention = policy_for_file(settings)().retention_of(replace(marker_of(desired_image(name)), vo=vo))
    assert (retention.grace, retention.keep_versions) == (timedelta(days=kept[0]), kept[1])


def test_a_set_of_a_part_of_which_it_cannot_be_told_whether_the_cloud_takes_it_is_held():
    parts = [replace(image(name, "2"), set_identifier="s", set_version="2") for name in ("x", "y")]
    parts[0] = replace(parts[0], listed=replace(parts[0].listed, expires=NOW + timedelta(days=99)))
    found = only(cloud(include="expires > 2026-12-01"), *parts)
    assert found.unknown == {image_identifier("y")}
    assert [bool(each.set_problem) for each in found.images] == [True]


def test_settings_about_nothing_that_is_wanted_are_told_with_what_may_have_been_meant():
    settings = cloud(
        only_vos=("VO.example.org", "ops"),
        vos={"vo.exmaple.org": VoSettings(), "vo.example.org": VoSettings()},
        images={image_identifier("debian"): ImageSettings(), "x": ImageSettings()},
    )
    assert unused_settings(settings, Desired(lists=(desired_list(image(), unknown=("alma",)),))) == (
        "clouds.main.only_vos: no list is for the VO 'ops'",
        "clouds.main.vos: no list is for the VO 'vo.exmaple.org'; did you mean 'vo.example.org'?",
        "clouds.main.images: no list names an image 'x'",
    )
    assert unused_settings(cloud(), Desired(lists=())) == ()
