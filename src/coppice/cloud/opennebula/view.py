# SPDX-License-Identifier: Apache-2.0
"""What is registered, out of what the pools hold: images of one version in several datastores are one registered image.

Pure. An image is this site's by its marker; the VM template of an appliance by site, list and image written on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coppice.cloud.model import ImageState, RegisteredImage, Visibility
from coppice.cloud.opennebula import document, objects, written
from coppice.cloud.opennebula.objects import NOBODY, Rights, State
from coppice.cloud.properties import clean
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from coppice.cloud.model import Audience, OwnershipMarker
    from coppice.cloud.opennebula.objects import StoredImage, StoredTemplate
    from coppice.cloud.opennebula.options import Placing
    from coppice.model.identifiers import ImageKey

SHOWN = frozenset({ImageState.AVAILABLE, ImageState.SUPERSEDED})
"""States from which users start machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appliance:
    """One version of an image, in all datastores where it lies.

    Attributes:
        copies: Its images, by number; the first is the one that machines start from.
        marker: What is written on the first.
    """

    copies: tuple[StoredImage, ...]
    marker: OwnershipMarker

    @property
    def first(self) -> StoredImage:
        """The image that machines start from, and whose number is the registered image's identifier."""
        return self.copies[0]

    @property
    def identifier(self) -> str:
        """The cloud's identifier."""
        return str(self.first.identifier)

    def has(self, number: int) -> bool:
        """Tell whether the image with that number is one of the copies."""
        return any(copy.identifier == number for copy in self.copies)

    @property
    def is_finished(self) -> bool:
        """Whether its registration ended."""
        wanted = written.copies(self.first.attributes)
        return len(self.copies) >= wanted and all(written.is_finished(each.attributes) for each in self.copies)

    @property
    def is_whole(self) -> bool:
        """Whether all of its bytes are there."""
        return self.is_finished and all(each.state in objects.WHOLE for each in self.copies)

    @property
    def machines(self) -> int:
        """How many run from it, or are being made."""
        return sum(max(each.machines, int(each.state in objects.IN_USE)) for each in self.copies)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What this site has in the cloud.

    Attributes:
        appliances: Every version, by the number of its first image.
        templates: The VM templates that bear this site's name, by number.
        by_key: The versions of each image.
        template_by_key: The oldest VM template of each image, by list and image.
    """

    appliances: tuple[Appliance, ...]
    templates: tuple[StoredTemplate, ...]
    by_key: Mapping[ImageKey, tuple[Appliance, ...]]
    template_by_key: Mapping[tuple[str, str], StoredTemplate]

    def find(self, identifier: str) -> Appliance | None:
        """Return the version with that identifier; that of a further copy is none."""
        return next((each for each in self.appliances if each.identifier == identifier), None)

    def of_key(self, key: ImageKey) -> tuple[Appliance, ...]:
        """Return every version of an image."""
        return self.by_key.get(key, ())

    def template_of(self, key: ImageKey) -> StoredTemplate | None:
        """Return the VM template of an image; of several, which only hands can have made, the oldest."""
        return self.template_by_key.get((key.list_identifier, key.image_identifier))

    def dangling(self, images: Iterable[StoredImage]) -> tuple[tuple[StoredTemplate, int], ...]:
        """Return the VM templates that start from something that is not among ``images``, and its number."""
        known = {image.identifier for image in images}
        return tuple(
            (template, number)
            for template in self.templates
            for number in template.images
            if number >= 0 and number not in known
        )

    def current(self, key: ImageKey) -> Appliance | None:
        """Return which version of an image its template should point at: the newest available one that is whole."""
        available = [each for each in self.of_key(key) if each.is_whole and each.marker.state is ImageState.AVAILABLE]
        return max(
            available,
            key=lambda each: (each.marker.pin is not None, Version(each.marker.version), each.first.identifier),
            default=None,
        )


def view_of(images: Iterable[StoredImage], templates: Iterable[StoredTemplate], site: str) -> View:
    """Return what ``site`` has.

    Raises:
        MarkerError: A marker of this site is damaged.
    """
    groups: dict[tuple[object, ...], list[tuple[StoredImage, OwnershipMarker]]] = {}
    for image in images:
        if image.state is State.DELETE:
            # It is on its way out, and nothing can be done with it any more.
            continue
        marker = written.read_marker(image.attributes, site, name=f"image {image.identifier}")
        if marker is not None:
            groups.setdefault((marker.key, marker.version, str(marker.digest)), []).append((image, marker))
    appliances = [
        Appliance(copies=tuple(image for image, _ in group), marker=group[0][1])
        for group in (sorted(each, key=lambda pair: pair[0].identifier) for each in groups.values())
    ]
    appliances.sort(key=lambda each: each.first.identifier)
    by_key: dict[ImageKey, tuple[Appliance, ...]] = {}
    for each in appliances:
        by_key[each.marker.key] = (*by_key.get(each.marker.key, ()), each)
    ours = sorted(
        (each for each in templates if _said(each, written.SITE) == site), key=lambda template: template.identifier
    )
    by_pair: dict[tuple[str, str], StoredTemplate] = {}
    for template in ours:
        by_pair.setdefault((_said(template, written.LIST), _said(template, written.IMAGE)), template)
    return View(appliances=tuple(appliances), templates=tuple(ours), by_key=by_key, template_by_key=by_pair)


def _said(template: StoredTemplate, name: str) -> str:
    return document.from_marker_value(document.texts(template.attributes).get(name, ""))


def registered(view: View, appliance: Appliance, *, cloud: str, placing: Placing) -> RegisteredImage:
    """Return a version as Coppice knows registered images."""
    return RegisteredImage(
        cloud=cloud,
        cloud_identifier=appliance.identifier,
        name=appliance.first.name,
        marker=appliance.marker,
        ready=appliance.is_whole,
        problem=None if appliance.is_whole else problem_of(appliance),
        drift=drift_of(view, appliance, placing) if appliance.is_whole else None,
    )


def problem_of(appliance: Appliance) -> str:
    """Return why a version is not whole, for people."""
    for copy in appliance.copies:
        where = f"image {copy.identifier} in datastore {copy.datastore_name}"
        if copy.state is State.ERROR:
            reason = clean(document.texts(copy.attributes).get("ERROR", ""), 300)
            return f"{where} is in state ERROR" + (f": {reason}" if reason else "")
        if copy.state not in objects.WHOLE:
            since = datetime.fromtimestamp(copy.registered_at, UTC).isoformat()
            return f"{where} is in state {copy.state.name} since {since}"
    wanted = written.copies(appliance.first.attributes)
    if len(appliance.copies) < wanted:
        return f"it lies in {len(appliance.copies)} of {wanted} datastores"
    return "its registration did not end"


def drift_of(view: View, appliance: Appliance, placing: Placing) -> str | None:
    """Return what is not as the marker's state asks for; None: all is."""
    state = appliance.marker.state
    found = [*_drift_of_copies(appliance, placing), *_drift_of_template(view, appliance, placing)]
    if any(
        written.read_marker(copy.attributes, appliance.marker.site, name=str(copy.identifier)) != appliance.marker
        for copy in appliance.copies[1:]
    ):
        found.append("its copies are not marked alike")
    return f"it is {state}, and {'; '.join(found)}" if found else None


def _drift_of_copies(appliance: Appliance, placing: Placing) -> list[str]:
    state, found = appliance.marker.state, []
    disabled = [copy for copy in appliance.copies if copy.state is State.DISABLED]
    if state in SHOWN or state is ImageState.STAGED:
        if disabled:
            found.append("disabled")
    elif len(disabled) < len(appliance.copies):
        machines = appliance.machines
        found.append(
            f"cannot be disabled while {machines} machines run from it or are made" if machines else "not disabled"
        )
    wanted = image_rights(appliance, placing)
    if any(copy.rights != wanted for copy in appliance.copies):
        found.append("other people may use it than should")
    return found


def _drift_of_template(view: View, appliance: Appliance, placing: Placing) -> list[str]:
    key = appliance.marker.key
    template = view.template_of(key)
    points = template is not None and appliance.first.identifier in template.images
    if appliance.marker.state is not ImageState.AVAILABLE:
        is_open = template is not None and (template.rights != NOBODY or not is_hidden(template))
        return ["its VM template starts from it"] if points and is_open else []
    current = view.current(key)
    if current is None or current.identifier != appliance.identifier:
        return []
    if template is None:
        return ["there is no VM template"]
    if template.images != (appliance.first.identifier,):
        return [f"VM template {template.identifier} does not start from it"]
    is_closed = template.rights != image_rights(appliance, placing) or is_hidden(template)
    return [f"VM template {template.identifier} is not open to those who should use it"] if is_closed else []


HIDDEN = "COPPICE_HIDDEN"


def is_hidden(template: StoredTemplate) -> bool:
    """Tell whether a VM template is marked as one that nobody is to use."""
    return document.texts(template.attributes).get(HIDDEN, "NO") == "YES"


def image_rights(appliance: Appliance, placing: Placing) -> Rights:
    """Return who is to be able to use a version's images now."""
    if appliance.marker.state not in SHOWN:
        return NOBODY
    presentation = written.read_presentation(appliance.first.attributes, name=appliance.first.name)
    return rights_of(presentation.audience, placing)


def rights_of(audience: Audience, placing: Placing) -> Rights:
    """Return the rights that an audience has."""
    visibility = audience.visibility or placing.visibility
    groups = groups_of(audience, placing)
    if visibility is None:
        visibility = Visibility.SHARED if groups else Visibility.PRIVATE
    return Rights(
        group=visibility is not Visibility.PRIVATE and bool(groups),
        other=visibility in {Visibility.COMMUNITY, Visibility.PUBLIC},
    )


def groups_of(audience: Audience, placing: Placing) -> Sequence[str]:
    """Return the groups whose members an audience is."""
    return audience.members or (() if placing.group is None else (placing.group,))
