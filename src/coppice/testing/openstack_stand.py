# SPDX-License-Identifier: Apache-2.0
"""Glance and Keystone as a stand for the contract suite of clouds, and for tests of what only they can be asked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from coppice.cloud.model import Visibility
from coppice.cloud.openstack import open_openstack
from coppice.cloud.openstack.words import UNFINISHED, fit, marker_properties
from coppice.cloud.properties import STATE
from coppice.model.image import DiskFormat
from coppice.testing.contracts.stand import (
    AdoptingStand,
    AudienceStand,
    CloudStand,
    DriftStand,
    TidyStand,
    UseStand,
)
from coppice.testing.desired import SITE, content_of, converted_image, desired_image, marker_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import DesiredImage, Presentation, RegisteredImage
    from coppice.cloud.openstack.driver import OpenStackCloud
    from coppice.conversion.model import ConvertedImage
    from coppice.testing.openstack import OpenStack

_OK, _MADE, _NOTHING, _NOT_FOUND = 200, 201, 204, 404
_PATCH = "application/openstack-images-v2.1-json-patch"
_OF_GLANCE = frozenset(
    {
        *("checksum", "created_at", "file", "id", "os_hash_algo", "os_hash_value", "owner", "schema", "self", "size"),
        *("status", "stores", "updated_at", "virtual_size", "locations", "direct_url"),
    }
)


class OpenStackStand(CloudStand, DriftStand, UseStand, AudienceStand, TidyStand, AdoptingStand):
    """A project in a Glance that is emptied before each test.

    Args:
        openstack: The services.
        cloud: The entry of ``clouds.yaml``.
        options: Of the driver.
    """

    def __init__(self, openstack: OpenStack, cloud: str = "alice", **options: object) -> None:
        openstack.forget_all()
        self.openstack = openstack
        self._entry: str = cloud
        self._options: dict[str, Any] = {"check_servers": "project", **options}
        self.cloud = self.tidy = self.adopting = cast("OpenStackCloud", self.of_site(SITE))
        first, second = sorted((openstack.project("beta"), openstack.project("gamma")))
        self.members = (first, second)
        self._foreign: list[str] = []

    def of_site(self, site: str) -> Cloud:
        """Return the driver of another site, as the same user."""
        key = (self._entry, site, json.dumps(self._options, sort_keys=True))
        # Who has logged in stays so: a driver keeps nothing else.
        drivers = self.openstack.kept
        if key not in drivers:
            settings = self.openstack.settings(self._entry, site=site, **self._options)
            drivers[key] = open_openstack(settings, (DiskFormat.RAW,))
        return cast("Cloud", drivers[key])

    def convert(self, desired: DesiredImage, directory: Path) -> ConvertedImage:
        """Return an image of a format that is taken whatever its bytes are."""
        content = content_of(str(desired.key), desired.listed.version)
        converted = converted_image(desired, directory, content)
        return replace(converted, image=replace(converted.image, format=DiskFormat.RAW))

    def add_foreign(self, name: str) -> None:
        """Make an image of the same project without a marker."""
        identifier = self.make({"name": name, "disk_format": "raw", "container_format": "bare", "theirs": "yes"})
        self._put_bytes(identifier, b"theirs" * 100)
        self._foreign.append(identifier)

    def foreign_is_whole(self) -> bool:
        """Tell whether each is as it was."""
        found = [self.image(identifier) for identifier in self._foreign]
        return all(
            image is not None
            and (image["theirs"], image["status"], image["visibility"], image["os_hidden"])
            == ("yes", "active", "shared", False)
            for image in found
        )

    def break_off(self, image: RegisteredImage) -> None:
        """Put an image without bytes into its place; no identifier is given twice."""
        there = self.image(image.cloud_identifier)
        assert there is not None
        self.delete_behind(image)
        kept = {key: value for key, value in there.items() if key not in _OF_GLANCE}
        self.make({**kept, "os_hidden": True, UNFINISHED: "yes"})

    def damage_marker(self, image: RegisteredImage) -> None:
        """Write a state that is none."""
        self.patch(image.cloud_identifier, STATE, "ripe")

    def delete_behind(self, image: RegisteredImage) -> None:
        """Remove it."""
        self.patch(image.cloud_identifier, "protected", value=False)
        status, said = self.openstack.ask("alice", "DELETE", f"/v2/images/{image.cloud_identifier}")
        assert status == _NOTHING, said

    def can_start(self, image: RegisteredImage) -> bool:
        """Ask for its bytes, as Nova does in a user's name."""
        status, _ = self.openstack.ask("alice", "GET", f"/v2/images/{image.cloud_identifier}/file")
        return status == _OK

    def is_listed(self, image: RegisteredImage) -> bool:
        """Look into the list that users see, which may have pages."""
        status, said = self.openstack.ask("alice", "GET", "/v2/images?limit=1000&status=active")
        assert status == _OK, said
        return any(each["id"] == image.cloud_identifier for each in said["images"])

    def check_shown(self, image: RegisteredImage, presentation: Presentation) -> None:
        """Look at what Glance has; nothing of a list has become another attribute."""
        there = self.image(image.cloud_identifier)
        assert there is not None
        assert there["name"] == fit(presentation.name) or not fit(presentation.name)
        facts = presentation.facts
        for fact, key in {
            "description": "vmcatcher_event_dc_description",
            "mpuri": "vmcatcher_event_ad_mpuri",
            "os_version": "os_version",
        }.items():
            assert there.get(key, "") == fit(facts.get(fact, "")), key
        assert {key: there.get(key) for key in presentation.properties} == presentation.properties
        assert there["owner"] == self.openstack.project("alpha")

    def list_by_hand(self, image: RegisteredImage) -> None:
        """Show it."""
        self.patch(image.cloud_identifier, "os_hidden", value=False)

    def unlist_by_hand(self, image: RegisteredImage) -> None:
        """Hide it."""
        self.patch(image.cloud_identifier, "os_hidden", value=True)

    def enable_by_hand(self, image: RegisteredImage) -> None:
        """Reactivate it."""
        self._act(image, "reactivate")

    def disable_by_hand(self, image: RegisteredImage) -> None:
        """Deactivate it."""
        self._act(image, "deactivate")

    def use(self, image: RegisteredImage) -> None:
        """Let Nova have a server that was made from it."""
        self.openstack.set_servers([image.cloud_identifier])

    def end_use(self, image: RegisteredImage) -> None:
        """Let Nova have none."""
        self.openstack.set_servers([])

    def shared_with(self, image: RegisteredImage) -> Sequence[str]:
        """Ask for its members; there are none of what is not shared."""
        status, said = self.openstack.ask("alice", "GET", f"/v2/images/{image.cloud_identifier}/members")
        return sorted(member["member_id"] for member in said["members"]) if status == _OK else []

    def visibility_of(self, image: RegisteredImage) -> Visibility:
        """Ask how far it is seen."""
        there = self.image(image.cloud_identifier)
        assert there is not None
        return Visibility(there["visibility"])

    def leave_behind(self) -> None:
        """Leave an image that was begun long ago and that nobody works on."""
        fields = {**marker_properties(marker_of(desired_image("left"))), UNFINISHED: "yes"}
        identifier = self.make({"name": "left", "os_hidden": True, **fields})
        self.openstack.glance.execute("UPDATE images SET updated_at = '2020-01-01 00:00:00' WHERE id = ?", identifier)

    def image(self, identifier: str, person: str = "alice") -> dict[str, Any] | None:
        """Return what Glance tells a person of an image; None: nothing."""
        status, said = self.openstack.ask(person, "GET", f"/v2/images/{identifier}")
        assert status in {_OK, _NOT_FOUND}, said
        return said if status == _OK else None

    def make(self, fields: dict[str, Any], person: str = "alice") -> str:
        """Make an image as a person does; return its identifier."""
        status, said = self.openstack.ask(person, "POST", "/v2/images", fields)
        assert status == _MADE, said
        return str(said["id"])

    def patch(self, identifier: str, name: str, value: object) -> None:
        """Set an attribute or a property by hand."""
        change = json.dumps([{"op": "add", "path": f"/{name}", "value": value}]).encode()
        status, said = self.openstack.ask("alice", "PATCH", f"/v2/images/{identifier}", change, content_type=_PATCH)
        assert status == _OK, said

    def all_images(self) -> list[dict[str, Any]]:
        """Return every image of the project, hidden ones included."""
        found = []
        for hidden in ("true", "false"):
            path = f"/v2/images?limit=1000&visibility=all&os_hidden={hidden}&owner={self.openstack.project('alpha')}"
            status, said = self.openstack.ask("alice", "GET", path)
            assert status == _OK, said
            found += said["images"]
        return found

    def _put_bytes(self, identifier: str, content: bytes) -> None:
        path, kind = f"/v2/images/{identifier}/file", "application/octet-stream"
        status, said = self.openstack.ask("alice", "PUT", path, content, content_type=kind)
        assert status == _NOTHING, said

    def _act(self, image: RegisteredImage, action: str) -> None:
        path = f"/v2/images/{image.cloud_identifier}/actions/{action}"
        status, said = self.openstack.ask("alice", "POST", path)
        assert status == _NOTHING, said
