# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.cloud.model import Desired, ImageState, OwnershipMarker, Policy, RegisteredImage
from coppice.cloud.plan import plan
from coppice.cloud.properties import presentation_digest, presentation_of
from coppice.cloud.steps import Action, ActionKind, Plan
from coppice.model.version import Version
from coppice.testing.desired import NOW, desired_image, desired_list, list_identifier, marker_of, registered_image

pytestmark = pytest.mark.unit
GRACE = timedelta(days=7)
LISTS = ("a", "b", "c")
IMAGES = ("x", "y", "z", "w")
VERSIONS = ("1", "2", "2~rc1", "10")
STARTABLE = {ImageState.AVAILABLE, ImageState.SUPERSEDED}
days = st.integers(min_value=-20, max_value=20).map(timedelta)

registered_images = st.lists(
    st.builds(
        lambda of_list, image, version, state, ready, since, end, list_version: registered_image(
            desired_image(image, version, of_list=of_list, list_version=list_version, expires=NOW + end),
            state=state,
            ready=ready,
            since=NOW - abs(since),
            cloud_identifier=f"{of_list}-{image}-{version}",
        ),
        st.sampled_from(LISTS),
        st.sampled_from(IMAGES),
        st.sampled_from(VERSIONS),
        st.sampled_from(ImageState),
        st.booleans(),
        days,
        days,
        st.sampled_from(("1", "2")),
    ),
    unique_by=lambda image: image.cloud_identifier,
    max_size=20,
)


@st.composite
def desires(draw: st.DrawFn) -> Desired:
    names = draw(st.sets(st.sampled_from(LISTS)))
    lists = []
    for name in sorted(names):
        version = draw(st.sampled_from(("1", "2", "3")))
        ends = NOW + draw(days)
        versions = draw(st.dictionaries(st.sampled_from(IMAGES), st.sampled_from(VERSIONS)))
        images = [
            desired_image(image, each, of_list=name, list_version=version, expires=min(ends, NOW + draw(days)))
            for image, each in sorted(versions.items())
        ]
        unknown = tuple(draw(st.sets(st.sampled_from(IMAGES)).map(lambda some, v=versions: some - v.keys())))
        lists.append(desired_list(*images, name=name, version=version, expires=ends, unknown=unknown))
    gone = draw(st.sets(st.sampled_from(LISTS))) - names
    return Desired(lists=tuple(lists), unsubscribed=frozenset(list_identifier(name) for name in gone))


policies = st.builds(
    lambda share, allow: Policy(grace=GRACE, maximum_withdrawn_share=share, allow_withdrawals=allow),
    st.sampled_from((0.0, 0.5, 1.0)),
    st.booleans(),
)


def changed(image: RegisteredImage, action: Action) -> RegisteredImage:
    marker: OwnershipMarker = image.marker
    if action.desired is not None:
        marker = replace(marker, expires=action.desired.expires, list_version=action.desired.list_version)
    if action.kind is ActionKind.UPDATE_METADATA:
        assert action.desired is not None
        marker = replace(marker, metadata_digest=presentation_digest(presentation_of(action.desired)))
    elif action.state is not None:
        marker = replace(marker, state=action.state, state_since=NOW)
    return replace(image, marker=marker)


def apply_to(registered: list[RegisteredImage], made: Plan) -> list[RegisteredImage]:
    images = {image.cloud_identifier: image for image in registered}
    for action in made.actions:
        if action.kind is ActionKind.REGISTER:
            assert action.desired is not None
            if action.registered is not None:
                del images[action.registered.cloud_identifier]
            new = registered_image(action.desired, cloud_identifier=f"new-{action.key}-{action.version}")
            images[new.cloud_identifier] = replace(new, marker=marker_of(action.desired))
            continue
        assert action.registered is not None
        identifier = action.registered.cloud_identifier
        if action.kind is ActionKind.REMOVE:
            del images[identifier]
        else:
            images[identifier] = changed(images[identifier], action)
    return list(images.values())


@settings(deadline=None, max_examples=25)
@given(registered_images, desires(), policies)
def test_a_plan_applied_again_and_again_comes_to_rest(
    registered: list[RegisteredImage], desired: Desired, policy: Policy
):
    for _round in range(3):
        made = plan(desired, registered, policy, NOW, "test")
        if not made.actions:
            break
        registered = apply_to(registered, made)
    assert plan(desired, registered, policy, NOW, "test").actions == ()


@settings(deadline=None, max_examples=25)
@given(registered_images, desires(), policies)
def test_nothing_is_removed_that_is_available_or_within_its_grace(
    registered: list[RegisteredImage], desired: Desired, policy: Policy
):
    for action in plan(desired, registered, policy, NOW, "test").actions:
        if action.kind is ActionKind.REMOVE:
            assert action.registered in registered
            assert action.registered.marker.state is not ImageState.AVAILABLE
            assert NOW - action.registered.marker.state_since >= GRACE


@settings(deadline=None, max_examples=25)
@given(registered_images, desires(), policies)
def test_a_list_that_is_not_known_changes_by_its_dates_alone(
    registered: list[RegisteredImage], desired: Desired, policy: Policy
):
    known = {wanted.identifier for wanted in desired.lists} | desired.unsubscribed
    for action in plan(desired, registered, policy, NOW, "test").actions:
        if action.key.list_identifier in known:
            continue
        assert action.registered is not None
        marker = action.registered.marker
        if action.kind is ActionKind.CHANGE_STATE:
            assert action.state is ImageState.EXPIRED
            assert marker.expires is not None
            assert marker.expires <= NOW
        else:
            assert action.kind is ActionKind.REMOVE
            assert marker.state is not ImageState.AVAILABLE


@settings(deadline=None, max_examples=25)
@given(registered_images, desires(), policies)
def test_what_is_still_listed_never_loses_its_last_usable_version(
    registered: list[RegisteredImage], desired: Desired, policy: Policy
):
    made = plan(desired, registered, policy, NOW, "test")
    # The worst that can happen: every registration fails, and what depends on one with it.
    failed = {position for position, action in enumerate(made.actions) if action.kind is ActionKind.REGISTER}
    done = tuple(
        action
        for position, action in enumerate(made.actions)
        if position not in failed and not failed.intersection(action.after)
    )
    after = apply_to(registered, replace(made, actions=done))
    for wanted in desired.lists:
        for image in wanted.images:
            if image.expires <= NOW or wanted.expires <= NOW:
                continue

            def usable(images: list[RegisteredImage], key: object = image.key) -> bool:
                return any(
                    each.marker.key == key
                    and each.ready
                    and each.marker.state in STARTABLE
                    and (each.marker.expires is None or each.marker.expires > NOW)
                    for each in images
                )

            assert usable(after) or not usable(registered)


@settings(deadline=None, max_examples=25)
@given(registered_images, desires(), policies)
def test_each_image_is_acted_upon_in_one_way_and_what_is_waited_for_comes_first(
    registered: list[RegisteredImage], desired: Desired, policy: Policy
):
    made = plan(desired, registered, policy, NOW, "test")
    touched = set()
    for position, action in enumerate(made.actions):
        assert all(each < position for each in action.after)
        if action.registered is not None and action.kind is not ActionKind.UPDATE_METADATA:
            assert action.registered.cloud_identifier not in touched
            touched.add(action.registered.cloud_identifier)
    updated = {
        action.registered.cloud_identifier
        for action in made.actions
        if action.registered is not None and action.kind is ActionKind.UPDATE_METADATA
    }
    assert made.unchanged == len(registered) - len(touched | updated)


@settings(deadline=None, max_examples=25)
@given(registered_images, desires())
def test_a_list_older_than_the_newest_that_is_registered_registers_nothing(
    registered: list[RegisteredImage], desired: Desired
):
    made = plan(desired, registered, Policy(grace=GRACE, allow_withdrawals=True), NOW, "test")
    for wanted in desired.lists:
        floor = max(
            (
                Version(image.marker.list_version)
                for image in registered
                if image.marker.key.list_identifier == wanted.identifier
            ),
            default=Version("0"),
        )
        if Version(wanted.version) < floor:
            kinds = {action.kind for action in made.actions if action.key.list_identifier == wanted.identifier}
            assert ActionKind.REGISTER not in kinds
            assert wanted.identifier in {held.list_identifier for held in made.held}
