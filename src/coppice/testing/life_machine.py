# SPDX-License-Identifier: Apache-2.0
"""Lives of registered images by chance: publishers, administrators, faults, kills, hands and clocks.

`LifeMachine` is a state machine for Hypothesis over a cloud in memory, planned for and applied to as in a real run.
What must hold after each change of the cloud, after each run, and after a run in which nothing goes wrong, are the
invariants I1 to I8; of those that are about files, locks and logs (the rest of I5, I9, I10) whole runs are asked.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coppice.clock import FixedClock
from coppice.cloud.apply import apply
from coppice.cloud.draft import STARTABLE
from coppice.cloud.memory import MemoryCloud, StoredImage
from coppice.cloud.model import Desired, ImageState, Policy, Revocation
from coppice.cloud.pins import plan_release, plan_rollback
from coppice.cloud.plan import plan
from coppice.cloud.revocations import Target, plan_taking_back
from coppice.cloud.steps import ActionKind
from coppice.conversion.model import ConvertedImage
from coppice.errors import CloudTimeoutError, CoppiceError, NotFoundError, PlanError
from coppice.model.image import DiskFormat, Image
from coppice.monitor import SILENT
from coppice.testing.chance_lists import LISTS, SET_PARTS, SINGLES, Published
from coppice.testing.contracts.chance_cloud import FAULTS, ChanceCloud, Killed
from coppice.testing.desired import NOW, desired_image, list_identifier
from coppice.testing.life_sets import is_of_set, set_versions, usable, whole_sets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.cloud.model import DesiredImage, RegisteredImage
    from coppice.cloud.steps import ActionResult, Plan
    from coppice.conversion.model import Formats
    from coppice.model.identifiers import ImageKey
    from coppice.monitor import Monitor

GRACE = timedelta(days=7)
POLICY = Policy(grace=GRACE, keep_versions=1)


class LifeMachine(RuleBasedStateMachine):
    """See the module."""

    directory: Path
    """Where the files of images are; a test sets it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FixedClock(NOW)
        self.cloud = ChanceCloud()
        self.cloud.watch = self._look
        self.lists = {name: Published() for name in LISTS}
        self.revocations: list[Revocation] = []
        self.vouched: set[tuple[ImageKey, str, str]] = set()
        self.newest: dict[tuple[str, str], int] = {}
        self.foreign: dict[str, StoredImage] = {}
        self.protected: set[ImageKey] = set()
        self.list_versions: dict[str, int] = {}

    @initialize()
    def begin(self) -> None:
        """A first life of everything."""
        for name in LISTS:
            for image in SINGLES[:2]:
                self._publish(name, image)
        self.publish_a_release("a")
        self.run_well()

    # What publishers do.

    @rule(name=st.sampled_from(LISTS), image=st.sampled_from(SINGLES))
    def publish_a_version(self, name: str, image: str) -> None:
        """A newer version of an image, or a first one."""
        self._publish(name, image)

    @rule(name=st.sampled_from(LISTS))
    def publish_a_release(self, name: str) -> None:
        """Newer versions of all images of a set."""
        for image in SET_PARTS:
            self._publish(name, image)
        self.lists[name].release = self.lists[name].version

    @rule(name=st.sampled_from(LISTS), image=st.sampled_from(SINGLES))
    def drop(self, name: str, image: str) -> None:
        """The list names an image no more."""
        self.lists[name].images.pop(image, None)
        self.lists[name].renew(self.clock.now())

    @rule(name=st.sampled_from(LISTS), image=st.sampled_from(SINGLES))
    def go_back(self, name: str, image: str) -> None:
        """The list names an older version."""
        version = self.lists[name].images.get(image, 0)
        if version > 1:
            self.lists[name].images[image] = version - 1
        self.lists[name].renew(self.clock.now())

    @rule(name=st.sampled_from(LISTS))
    def sign_anew(self, name: str) -> None:
        """The same content for longer."""
        self.lists[name].renew(self.clock.now())

    @rule(name=st.sampled_from(LISTS))
    def lose_or_find(self, name: str) -> None:
        """The list cannot be fetched, or can again."""
        self.lists[name].reachable = not self.lists[name].reachable

    @rule(name=st.sampled_from(LISTS))
    def subscribe_or_not(self, name: str) -> None:
        """The list is not followed, or is again."""
        self.lists[name].subscribed = not self.lists[name].subscribed

    # What administrators and users do.

    @rule(data=st.data(), every=st.booleans())
    def revoke(self, data: st.DataObject, *, every: bool) -> None:
        """Something that is registered is revoked."""
        image = self._one(data)
        if image is None:
            return
        marker = image.marker
        by_digest = data.draw(st.booleans())
        target = (
            Target(digest=marker.digest)
            if by_digest
            else Target(key=marker.key, version=None if every else marker.version)
        )
        self.revocations.append(target.revocation("by chance", self.clock.now()))

    @precondition(lambda self: self.revocations)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """A revocation is taken back."""
        chosen = data.draw(st.sampled_from(self.revocations))
        self.revocations = [each for each in self.revocations if each is not chosen]
        target = Target(digest=chosen.digest, key=chosen.key, version=chosen.version)
        self._by_hand(lambda there: plan_taking_back(there, target, self.revocations, self.clock.now(), "chance"))

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        """An administrator goes back to a version."""
        image = self._one(data)
        if image is not None:
            key, version = image.marker.key, image.marker.version
            self._by_hand(lambda there: plan_rollback(there, key, version, self.clock.now(), "chance"))

    @rule(name=st.sampled_from(LISTS), part=st.sampled_from(SET_PARTS))
    def revoke_where_a_set_was_gone_back_to(self, name: str, part: str) -> None:
        """A set goes back to an earlier release, of which a part is revoked then: it leaves it as a whole."""
        self.publish_a_release(name)
        self.run_well()
        key = desired_image(part, of_list=name).key
        there = [image.marker for image in MemoryCloud.describe(self.cloud) if image.marker.key == key]
        version = next((marker.version for marker in there if marker.state is ImageState.SUPERSEDED), None)
        if version is not None:
            to = version
            self._by_hand(lambda there: plan_rollback(there, key, to, self.clock.now(), "chance"))
            self.revocations.append(Target(key=key, version=to).revocation("by chance", self.clock.now()))
            self.run_well()

    @rule(data=st.data())
    def release_pin(self, data: st.DataObject) -> None:
        """An administrator lets an image follow its list."""
        image = self._one(data)
        if image is not None:
            key = image.marker.key
            self._by_hand(lambda there: plan_release(there, key, self.clock.now(), "chance"))

    @rule(data=st.data(), what=st.sampled_from(("list", "hide", "enable", "delete", "start", "stop")))
    def meddle(self, data: st.DataObject, what: str) -> None:
        """Somebody's hand, or a user's machine."""
        image = self._one(data)
        if image is None:
            return
        stored = self.cloud.images[image.cloud_identifier]
        if what == "delete":
            del self.cloud.images[image.cloud_identifier]
        elif what in {"list", "hide"}:
            stored.listed = what == "list"
        elif what == "enable":
            stored.startable = True
        elif what == "start" and stored.ready and stored.startable:
            stored.machines += 1
        elif what == "stop":
            stored.machines = 0

    @rule(name=st.sampled_from(SINGLES), site=st.sampled_from((None, "another-site")))
    def foreign_image(self, name: str, site: str | None) -> None:
        """An image of somebody else with a name of ours."""
        identifier = f"foreign-{len(self.foreign)}"
        properties = {"owner": "them"} | ({"coppice_site": site} if site else {})
        for images in (self.cloud.images, self.foreign):
            images[identifier] = StoredImage(name=f"{name} image", properties=dict(properties), checksum="x")

    # What time and chance do.

    @rule(days=st.sampled_from((0.1, 1, 3, 8, 15, 31)))
    def time_passes(self, days: float) -> None:
        """Days go by."""
        self.clock.advance(timedelta(days=days))

    @rule(first=st.integers(min_value=1, max_value=12), fault=st.sampled_from(FAULTS))
    def run_badly(self, first: int, fault: str) -> None:
        """A run in which a call goes wrong, or that is killed there."""
        self.cloud.faults = {self.cloud.calls + first: fault}
        try:
            self._run()
        except (Killed, CloudTimeoutError):
            pass
        finally:
            self.cloud.faults = {}

    @rule(first=st.integers(min_value=1, max_value=6), distance=st.integers(min_value=1, max_value=6))
    def run_with_two_faults(self, first: int, distance: int) -> None:
        """A run in which two calls are not answered."""
        self.cloud.faults = {self.cloud.calls + first: "after", self.cloud.calls + first + distance: "before"}
        try:
            self._run()
        except CloudTimeoutError:
            pass
        finally:
            self.cloud.faults = {}

    @rule(name=st.sampled_from(LISTS), part=st.sampled_from(SET_PARTS), fault=st.sampled_from(("before", "after")))
    def run_with_a_part_that_cannot_be_listed(self, name: str, part: str, fault: str) -> None:
        """A new release of a set, of which one image cannot be listed, or is and the cloud does not say so."""
        self.publish_a_release(name)
        self.cloud.unlistable, self.cloud.unlistable_by = f"{part} image", fault
        try:
            self._run()
        finally:
            self.cloud.unlistable = ""

    @rule()
    def run_well(self) -> None:
        """A run in which nothing goes wrong converges, and the next has nothing to do (I2, I4)."""
        for _round in range(4):
            results = self._run()
            if not any(result.error is None for result in results):
                break
        for each in self.cloud.leftovers():
            self.cloud.clear(each)
        self._check_rest()

    # What must hold.

    @invariant()
    def nothing_foreign_is_touched(self) -> None:
        """I3."""
        assert {name: self.cloud.images.get(name) for name in self.foreign} == self.foreign

    @invariant()
    def what_is_registered_was_vouched_for(self) -> None:
        """I1: the marker is of a list's entry, and the bytes are those of that entry."""
        for image in MemoryCloud.describe(self.cloud):
            marker = image.marker
            assert (marker.key, marker.version, str(marker.digest)) in self.vouched
            assert self.cloud.images[image.cloud_identifier].checksum == str(marker.digest)

    @invariant()
    def no_version_is_available_twice(self) -> None:
        """I2."""
        seen: set[tuple[ImageKey, str]] = set()
        for image in MemoryCloud.describe(self.cloud):
            name = (image.marker.key, image.marker.version)
            if image.marker.state is ImageState.AVAILABLE and image.ready:
                assert name not in seen
                seen.add(name)

    def _publish(self, name: str, image: str) -> None:
        version = self.newest.get((name, image), 0) + 1
        self.newest[name, image] = self.lists[name].images[image] = version
        self.lists[name].renew(self.clock.now())

    def _desired(self) -> Desired:
        followed = {name: each for name, each in self.lists.items() if each.subscribed}
        known = tuple(each.listed(name) for name, each in sorted(followed.items()) if each.reachable)
        for wanted in known:
            self.vouched |= {(each.key, each.listed.version, str(each.listed.checksum)) for each in wanted.images}
        gone = frozenset(list_identifier(name) for name in LISTS if name not in followed)
        return Desired(lists=known, unsubscribed=gone, revocations=tuple(self.revocations))

    def _obtain(self, desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        path = self.directory / "disk.qcow2"
        path.touch()
        checksum = desired.listed.checksum
        image = Image(format=DiskFormat.QCOW2, size_bytes=1, virtual_size_bytes=1, checksum=checksum)
        return ConvertedImage(
            key=desired.key,
            version=desired.listed.version,
            path=path,
            image=image,
            source_checksum=checksum,
            converter="none",
            reused=False,
        )

    def _run(self) -> tuple[ActionResult, ...]:
        desired = self._desired()
        return self._apply(lambda there: plan(desired, there, POLICY, self.clock.now(), "chance"))

    def _by_hand(self, planner: Callable[[tuple[RegisteredImage, ...]], Plan]) -> None:
        try:
            self._apply(planner)
        except (NotFoundError, PlanError):
            return

    def _apply(self, planner: Callable[[tuple[RegisteredImage, ...]], Plan]) -> tuple[ActionResult, ...]:
        made = planner(self.cloud.describe())
        leaving = {
            action.key
            for action in made.actions
            if action.kind is ActionKind.CHANGE_STATE
            and action.registered is not None
            and action.registered.marker.state is ImageState.AVAILABLE
            and action.state not in STARTABLE
            and not action.after
        }
        self.protected = usable(self.cloud) - leaving
        whole = whole_sets(self.cloud)
        try:
            results = apply(
                made,
                self.cloud,
                obtain=self._obtain,
                clock=self.clock,
                policy=POLICY,
                monitor=SILENT,
            ).results
        finally:
            self.protected = set()
        # I8: what was not done has an error of its own.
        assert len(results) == len(made.actions)
        assert all(isinstance(result.error, CoppiceError) for result in results if result.skipped)
        # A set of which users found one release is of one release still, save where taking it back failed, as was told.
        is_mixed = any(result.error and "others of its set" in result.error.message for result in results)
        there = set_versions(self.cloud)
        assert is_mixed or all(len(there.get(name, ())) <= 1 for name in whole)
        return results

    def _look(self) -> None:
        """I7: whatever had a version that users find has one still; I6: no marker tells of an older list."""
        assert self.protected <= usable(self.cloud)
        for image in MemoryCloud.describe(self.cloud):
            version = int(image.marker.list_version)
            assert version >= self.list_versions.get(image.cloud_identifier, 0)
            self.list_versions[image.cloud_identifier] = version

    def _check_rest(self) -> None:
        desired, now = self._desired(), self.clock.now()
        there = self.cloud.describe()
        made = plan(desired, there, POLICY, now, "chance")
        # What a machine runs from is to be removed, and is not.
        assert all(action.kind is ActionKind.REMOVE and action.registered is not None for action in made.actions)
        assert all(self.cloud.in_use(action.registered) for action in made.actions if action.registered)
        assert self.cloud.leftovers() == ()
        refused = {str(error.context["image"]) for error in made.refused}
        held = {action.key for each in made.held if (action := each.action) is not None}
        available = {
            (image.marker.key, image.marker.version) for image in there if image.marker.state is ImageState.AVAILABLE
        }
        pinned = {image.marker.key for image in there if image.marker.pin is not None}
        of_pinned_sets = {key for key in pinned if is_of_set(key)}
        for each in desired.lists:
            for image in each.images:
                waits = str(image.key) in refused or image.key in held or image.key in pinned or image.expires <= now
                waits = waits or (image.set_identifier is not None and bool(of_pinned_sets))
                assert waits or (image.key, image.listed.version) in available
        for found in there:
            stored, state = self.cloud.images[found.cloud_identifier], found.marker.state
            if found.ready:
                assert stored.startable is (state in STARTABLE)
                assert stored.listed is (state is ImageState.AVAILABLE)
            assert found.marker.expires is None or found.marker.expires > now or state not in STARTABLE

    def _one(self, data: st.DataObject) -> RegisteredImage | None:
        return data.draw(st.sampled_from(there)) if (there := MemoryCloud.describe(self.cloud)) else None
