# SPDX-License-Identifier: Apache-2.0
"""OpenNebula for the contract suite: the driver over a simulated front-end, and what users see of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.cloud.model import Visibility
from coppice.cloud.opennebula import document, written
from coppice.cloud.opennebula.driver import OpenNebulaCloud
from coppice.cloud.opennebula.failures import Failures
from coppice.cloud.opennebula.front_end import FrontEnd
from coppice.cloud.opennebula.options import FrontEndSettings, Placing
from coppice.cloud.opennebula.publishing import template_names
from coppice.cloud.opennebula.view import view_of
from coppice.cloud.transports.by_path import PathTransport
from coppice.settings.driver_options import Secret
from coppice.testing.contracts.stand import AdoptingStand, CloudStand, DriftStand, TidyStand, UseStand
from coppice.testing.desired import SITE
from coppice.testing.opennebula.objects import Image, Right, State
from coppice.testing.opennebula.refusal import Refusal
from coppice.testing.opennebula.simulator import OpenNebulaSimulator
from coppice.testing.opennebula.template import Template

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.cloud.model import Presentation, RegisteredImage
    from coppice.testing.opennebula.objects import User, VmTemplate

OTHERS = [0, 0, 0]
USE = [1, 0, 0]


class OpenNebulaStand(CloudStand, DriftStand, UseStand, TidyStand, AdoptingStand):
    """A simulated front-end below ``path``, and a driver that registers there as ``oneadmin``, for everybody.

    Args:
        path: An empty directory.
        placing: Where images lie; None: in ``default``, for everybody.
    """

    def __init__(self, path: Path, placing: Placing | None = None) -> None:
        offers = path / "offers"
        offers.mkdir(parents=True)
        self.path = path
        self.simulator = OpenNebulaSimulator(path / "front-end", safe_directories=str(offers))
        self.user: User = self.simulator.add_user("user", "secret")
        self.placing = placing or Placing(visibility=Visibility.PUBLIC)
        self.transport = PathTransport(offers, str(offers))
        (path / "one_auth").write_text("oneadmin:secret\n")
        (path / "one_auth").chmod(0o600)
        self.machines: dict[str, int] = {}
        self.foreign: dict[int, str] = {}
        self.driver = self.of_site(SITE)
        self.cloud = self.tidy = self.adopting = self.driver

    def settings(self, **changes: float) -> FrontEndSettings:
        """Return how the driver speaks to the front-end: as quickly as a test wants it."""
        quick = FrontEndSettings(
            endpoint=self.simulator.endpoint,
            secret=Secret(file=self.path / "one_auth"),
            call_seconds=30.0,
            image_seconds=60.0,
            poll_seconds=0.01,
            retry_seconds=0.01,
        )
        return replace(quick, **changes)  # type: ignore[arg-type]

    def of_site(self, site: str, **changes: float) -> OpenNebulaCloud:
        """Return the driver of a site."""
        settings = self.settings(**changes)
        return OpenNebulaCloud(
            "test",
            site,
            front_end=FrontEnd(settings, Failures("test", settings.endpoint)),
            placing=self.placing,
            transport=self.transport,
        )

    def image(self, image: RegisteredImage) -> Image:
        """Return an image as the front-end keeps it."""
        return self.simulator.image(int(image.cloud_identifier))

    def template(self, image: RegisteredImage) -> VmTemplate | None:
        """Return the VM template of an image's appliance."""
        for template in self.simulator.templates():
            said = [document.from_marker_value(template.template.first(name)) for name in _IDENTITY]
            if said == [image.marker.site, image.marker.key.list_identifier, image.marker.key.image_identifier]:
                return template
        return None

    def add_foreign(self, name: str) -> None:
        """Make an image and a VM template of the same user, as a person would."""
        world = self.simulator.world
        with world.lock:
            place = world.datastores[1]
            made = Image(
                identifier=world.next_identifier("image"),
                owner=0,
                group=0,
                name=document.object_name(name),
                registered=1,
                datastore=place.identifier,
                path="/var/tmp/theirs",  # noqa: S108 - nothing is there
                size_mib=1,
                source=f"{place.base}/theirs",
                state=State.READY,
            )
            made.template.put("NIFTY_APPLIANCE_ID", "theirs")
            world.images[made.identifier] = made
        self.foreign[made.identifier] = made.template.xml()

    def foreign_is_whole(self) -> bool:
        """Tell whether what `add_foreign` made is as it was."""
        return all(
            number in self.simulator.world.images
            and self.simulator.image(number).template.xml() == text
            and self.simulator.image(number).state is State.READY
            for number, text in self.foreign.items()
        )

    def break_off(self, image: RegisteredImage) -> None:
        """Leave a copy that failed."""
        stored = self.image(image)
        stored.template.put("ERROR", "Error copying image in the datastore: cut short")
        stored.source = ""
        stored.enter(State.ERROR)

    def damage_marker(self, image: RegisteredImage) -> None:
        """Write a state that is none."""
        self.image(image).template.put("COPPICE_STATE", "ripe")

    def delete_behind(self, image: RegisteredImage) -> None:
        """Drop the image."""
        with self.simulator.world.lock:
            self.simulator.world.drop(self.image(image), with_file=True)

    def can_start(self, image: RegisteredImage) -> bool:
        """Start a machine from the image as an ordinary user."""
        stored = self.image(image)
        if not stored.allows(self.user, Right.USE):
            return False
        try:
            machine = self.simulator.start_machine(stored.identifier)
        except Refusal:
            return False
        self.simulator.end_machine(machine)
        return True

    def is_listed(self, image: RegisteredImage) -> bool:
        """Tell whether an ordinary user sees a VM template that starts from the image."""
        return any(
            template.allows(self.user, Right.USE) and _disks(template) == [image.cloud_identifier]
            for template in self.simulator.templates()
        )

    def has_something_to_start(self) -> bool:
        """Tell whether an ordinary user finds a VM template and can start a machine from it, without starting one."""
        world = self.simulator.world
        with world.lock:
            for template in world.templates.values():
                images = [world.images.get(int(each)) for each in _disks(template) if each.isdecimal()]
                usable = [
                    image is not None
                    and image.state in {State.READY, State.USED}
                    and image.allows(self.user, Right.USE)
                    for image in images
                ]
                if template.allows(self.user, Right.USE) and usable and all(usable):
                    return True
        return False

    def check_shown(self, image: RegisteredImage, presentation: Presentation) -> None:
        """Look at the VM template's name, and at the attributes of the image."""
        (appliance,) = (
            each
            for each in view_of(self.driver.front_end.images(), (), SITE).appliances
            if each.identifier == image.cloud_identifier
        )
        template = self.template(image)
        assert template is not None
        assert template.name in template_names(appliance)
        assert template.name.startswith(document.object_name(presentation.name)[:50].strip())
        stored = self.image(image).template
        assert written.read_presentation(appliance.first.attributes, name="") == presentation
        for name, value in written.shown_attributes(image.marker, presentation):
            assert isinstance(value, str)
            assert stored.all(name) == [document.writable(value)]

    def list_by_hand(self, image: RegisteredImage) -> None:
        """Point the template at the image, for everybody."""
        template = self.template(image)
        assert template is not None
        template.template = template.template.merged(_template(image))
        template.permissions[6:9] = USE

    def unlist_by_hand(self, image: RegisteredImage) -> None:
        """Take the template from everybody."""
        template = self.template(image)
        assert template is not None
        template.permissions[6:9] = OTHERS

    def enable_by_hand(self, image: RegisteredImage) -> None:
        """Enable the image, for everybody."""
        self.image(image).enter(State.READY)
        self.image(image).permissions[6:9] = USE

    def disable_by_hand(self, image: RegisteredImage) -> None:
        """Disable the image."""
        self.image(image).enter(State.DISABLED)

    def use(self, image: RegisteredImage) -> None:
        """Start a machine."""
        self.machines[image.cloud_identifier] = self.simulator.start_machine(int(image.cloud_identifier))

    def end_use(self, image: RegisteredImage) -> None:
        """End it."""
        self.simulator.end_machine(self.machines.pop(image.cloud_identifier))

    def leave_behind(self) -> None:
        """Make a VM template whose image is gone."""
        front_end = self.driver.front_end
        front_end.allocate_template(
            (
                ("NAME", "left behind"),
                (written.SITE, SITE),
                (written.LIST, "gone"),
                (written.IMAGE, "gone"),
                ("DISK", (("IMAGE_ID", "4711"),)),
            )
        )


_IDENTITY = (written.SITE, written.LIST, written.IMAGE)


def _template(image: RegisteredImage) -> Template:
    return Template([("DISK", {"IMAGE_ID": image.cloud_identifier})])


def _disks(template: VmTemplate) -> list[str]:
    return [dict(disk).get("IMAGE_ID", "") for disk in template.template.all("DISK") if not isinstance(disk, str)]
