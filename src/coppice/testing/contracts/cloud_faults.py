# SPDX-License-Identifier: Apache-2.0
"""What every cloud must bear: texts that mean harm, runs that were killed, hands that meddle, two threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.model import ImageState, Presentation
from coppice.cloud.properties import MAX_TITLE_LENGTH, presentation_of
from coppice.errors import CloudError
from coppice.testing.contracts.stand import register, to_state
from coppice.testing.desired import desired_image, marker_of

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.cloud.model import RegisteredImage
    from coppice.testing.contracts.stand import CloudStand

HOSTILE_TITLES = {
    "path": "../../etc/passwd",
    "absolute path": "/etc/passwd",
    "null": "a\x00b",
    "right to left": "\u202egnp.exe",
    "command": "$(reboot)",
    "backtick": "`x`",
    "empty": "",
    "dot": ".",
    "current": "current",
    "umlauts": "ü" * 5000,
    "newline": "a\nb",
    "carriage return": 'a\r\nPATH = "/etc/shadow"',
    "four bytes": "🌱 Debian 🌱",
    "four bytes alone": "🌱",
    "double quote": 'Debian "stable" 12',
    "quote at the end": 'Debian"',
    "single quotes": "Debian's 'stable'",
    "bracket": 'x ] , DISK = [ IMAGE_ID = "0',
    "backslash": "Debian\\",
    "variable": "${HOME} $NAME $$",
    "percent": "%s %(name)s {name} {0.__class__}",
    "mark-up": "<NAME>root</NAME> & ]]> <!-- <![CDATA[",
    "entity": "&xxe; &#0; &lt;",
    "ten kilobytes": "Debian " * 1463,
    "lone surrogate": "a\ud800b",
    "not a character": "a\ufffeb\uffff",
    "combining": "e\u0301" * 300,
    "comma and equals": "a=b,c=d;e:f#g",
    "option": "--help",
    "spaces": "  a  ",
}
"""Texts of lists that mean harm to some cloud, by what they are."""


class HostileCases:
    """Texts from lists are data."""

    @pytest.mark.threat("T72", "T73")
    @pytest.mark.parametrize(
        "title", [HOSTILE_TITLES[name] for name in sorted(HOSTILE_TITLES)], ids=sorted(HOSTILE_TITLES)
    )
    def test_hostile_titles_do_no_harm(self, stand: CloudStand, store: Path, title: str, tmp_path: Path) -> None:
        before = {entry.name for entry in tmp_path.iterdir()}
        desired = desired_image(title=title)
        image = register(stand, desired, store)
        assert image.ready
        assert stand.cloud.describe() == (image,)
        assert stand.can_start(image)
        stand.check_shown(image, presentation_of(desired))
        renamed = desired_image(title=f"{title[:MAX_TITLE_LENGTH]} again")
        changed = stand.cloud.update_metadata(image, marker_of(renamed), presentation_of(renamed))
        assert stand.cloud.describe() == (changed,)
        hidden = to_state(stand.cloud, changed, ImageState.WITHDRAWN)
        stand.cloud.remove(hidden)
        assert stand.cloud.describe() == ()
        assert {entry.name for entry in tmp_path.iterdir()} - before <= {"cloud", "store"}

    @pytest.mark.threat("T72", "T73")
    @pytest.mark.parametrize("name", sorted(HOSTILE_TITLES))
    def test_hostile_facts_do_no_harm(self, stand: CloudStand, store: Path, name: str) -> None:
        text = presentation_of(desired_image(title=HOSTILE_TITLES[name])).facts.get("title", "")
        desired = desired_image()
        facts = dict.fromkeys(presentation_of(desired).facts, text) if text else {}
        presentation = Presentation(name="Debian", facts=facts)
        image = register(stand, desired, store)
        changed = stand.cloud.update_metadata(image, image.marker, presentation)
        assert changed.marker == image.marker
        assert stand.cloud.describe() == (changed,)
        assert stand.can_start(changed)
        assert stand.is_listed(changed)
        stand.check_shown(changed, presentation)

    @pytest.mark.threat("T88")
    def test_two_images_of_one_title_are_two_images(self, stand: CloudStand, store: Path) -> None:
        one = register(stand, desired_image("debian", title="The same"), store)
        two = register(stand, desired_image("alma", title="The same"), store)
        assert one.cloud_identifier != two.cloud_identifier
        assert stand.is_listed(one)
        assert stand.is_listed(two)
        gone = to_state(stand.cloud, one, ImageState.WITHDRAWN)
        assert stand.is_listed(two)
        assert stand.can_start(two)
        stand.cloud.remove(gone)
        assert stand.cloud.describe() == (two,)
        assert stand.is_listed(two)

    @pytest.mark.threat("T88")
    def test_two_versions_of_one_title_are_two_images(self, stand: CloudStand, store: Path) -> None:
        old = register(stand, desired_image(version="1", title="The same"), store)
        new = register(stand, desired_image(version="2", title="The same"), store)
        assert old.cloud_identifier != new.cloud_identifier
        hidden = to_state(stand.cloud, old, ImageState.SUPERSEDED)
        stand.cloud.remove(hidden)
        assert stand.cloud.describe() == (new,)
        assert stand.is_listed(new)


class FaultCases:
    """Runs that did not end, and hands that meddle."""

    def test_a_registration_that_did_not_end_is_recognised_and_made_anew(self, stand: CloudStand, store: Path) -> None:
        image = register(stand, desired_image(), store)
        stand.break_off(image)
        (half,) = stand.cloud.describe()
        assert not half.ready
        assert half.marker == image.marker
        again = register(stand, desired_image(), store)
        assert again.ready
        assert stand.cloud.describe() == (again,)
        assert stand.can_start(again)

    def test_a_registration_that_did_not_end_takes_a_state_and_can_be_removed(
        self, stand: CloudStand, store: Path
    ) -> None:
        stand.break_off(register(stand, desired_image(), store))
        (half,) = stand.cloud.describe()
        changed = to_state(stand.cloud, half, ImageState.WITHDRAWN)
        assert changed.marker.state is ImageState.WITHDRAWN
        assert not changed.ready
        stand.cloud.remove(changed)
        assert stand.cloud.describe() == ()

    @pytest.mark.threat("T90")
    def test_a_newer_version_that_is_not_whole_leaves_the_older_to_its_users(
        self, stand: CloudStand, store: Path
    ) -> None:
        old = register(stand, desired_image(version="1"), store)
        new = register(stand, desired_image(version="2"), store, state=ImageState.STAGED)
        stand.break_off(new)
        ready = {image.marker.version: image.ready for image in stand.cloud.describe()}
        assert ready == {"1": True, "2": False}
        assert stand.can_start(old)

    def test_an_image_deleted_behind_our_back_is_not_described_and_comes_again(
        self, stand: CloudStand, store: Path
    ) -> None:
        kept = register(stand, desired_image("alma"), store)
        image = register(stand, desired_image(), store)
        stand.delete_behind(image)
        assert stand.cloud.describe() == (kept,)
        with pytest.raises(CloudError):
            to_state(stand.cloud, image, ImageState.WITHDRAWN)
        with pytest.raises(CloudError):
            stand.cloud.update_metadata(image, image.marker, presentation_of(desired_image()))
        stand.cloud.remove(image)
        again = register(stand, desired_image(), store)
        assert {each.marker.key for each in stand.cloud.describe()} == {kept.marker.key, again.marker.key}
        assert stand.can_start(again)
        assert stand.is_listed(again)

    def test_threads_at_work_on_different_images_do_not_disturb_each_other(
        self, stand: CloudStand, store: Path
    ) -> None:
        names = ("alma", "debian", "rocky", "ubuntu")
        for name in names:
            # The files are made beforehand: two threads that make one file are no matter of the cloud.
            stand.convert(desired_image(name, "1"), store)
            stand.convert(desired_image(name, "2"), store)

        def live(name: str) -> RegisteredImage:
            old = register(stand, desired_image(name, "1"), store)
            new = register(stand, desired_image(name, "2"), store, state=ImageState.STAGED)
            listed = to_state(stand.cloud, new, ImageState.AVAILABLE)
            hidden = to_state(stand.cloud, old, ImageState.SUPERSEDED)
            stand.cloud.remove(hidden)
            return listed

        with ThreadPoolExecutor(len(names)) as pool:
            kept = list(pool.map(live, names))
        described = stand.cloud.describe()
        assert sorted(described, key=lambda each: each.cloud_identifier) == sorted(
            kept, key=lambda each: each.cloud_identifier
        )
        assert all(image.ready for image in described)
        assert all(stand.is_listed(image) for image in described)

    @pytest.mark.threat("T84")
    def test_two_threads_that_register_different_versions_of_one_image_leave_both_whole(
        self, stand: CloudStand, store: Path
    ) -> None:
        versions = ("1", "2")
        for version in versions:
            stand.convert(desired_image(version=version), store)
        with ThreadPoolExecutor(2) as pool:
            images = list(
                pool.map(
                    lambda version: register(stand, desired_image(version=version), store, state=ImageState.STAGED),
                    versions,
                )
            )
        assert {image.marker.version for image in stand.cloud.describe()} == {"1", "2"}
        assert all(image.ready for image in stand.cloud.describe())
        assert len({image.cloud_identifier for image in images}) == len(versions)
