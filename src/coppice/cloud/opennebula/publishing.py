# SPDX-License-Identifier: Apache-2.0
"""Bringing what users see to what a state asks for: rights of images, the VM template, its name.

Each step looks at what is there and does what is missing: a run that is killed anywhere is repeated by the next.
"""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.cloud.opennebula import document, machine, written
from coppice.cloud.opennebula.failures import taken_by
from coppice.cloud.opennebula.objects import NOBODY, State
from coppice.cloud.opennebula.view import HIDDEN, groups_of, image_rights, is_hidden, rights_of
from coppice.errors import (
    CloudFaultError,
    CloudForbiddenError,
    CloudImageGoneError,
    CloudImageInUseError,
    CloudNameTakenError,
    CloudRefusedImageError,
    CloudTimeoutError,
    CloudUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coppice.cloud.model import Audience, OwnershipMarker
    from coppice.cloud.opennebula.front_end import FrontEnd
    from coppice.cloud.opennebula.objects import StoredImage, StoredTemplate
    from coppice.cloud.opennebula.options import Placing
    from coppice.cloud.opennebula.view import Appliance, View

UNKNOWN_OUTCOME = (CloudUnreachableError, CloudTimeoutError, CloudFaultError)
"""After these it is not known whether a call was carried out."""


class Publishing:
    """Shows and hides versions of appliances.

    Args:
        front_end: Where.
        placing: For whom, and as what machines.
        look: Returns what this site has there now.
    """

    def __init__(self, front_end: FrontEnd, placing: Placing, look: Callable[[], View]) -> None:
        self._one = front_end
        self._placing = placing
        self._look = look

    def group_of(self, audience: Audience) -> int | None:
        """Return the number of the group that an audience is; None: it is none.

        Raises:
            CloudRefusedImageError: There is no such group, or there are several.
            CloudError: The groups could not be asked for.
        """
        wanted = groups_of(audience, self._placing)
        if not wanted:
            return None
        cloud = self._one.failures.cloud
        if len(wanted) > 1:
            raise CloudRefusedImageError(
                f"cloud {cloud}: an image is for {len(wanted)} groups, and an object of OpenNebula has one",
                details=", ".join(wanted),
                resolution="Name one group; or make one that all of them are secondary members of.",
            )
        known = self._one.groups()
        (name,) = wanted
        if name in known:
            return known[name]
        if name.isascii() and name.isdecimal() and int(name) in known.values():
            return int(name)
        near = difflib.get_close_matches(name, sorted(known), n=1)
        raise CloudRefusedImageError(
            f"cloud {cloud}: there is no group {name!r}" + (f". Did you mean {near[0]!r}?" if near else ""),
            resolution="Make it (onegroup create), or name another in the settings.",
        )

    def share(self, appliance: Appliance) -> None:
        """Give the images of a version the rights that its state asks for."""
        wanted = image_rights(appliance, self._placing)
        group = self.group_of(_audience(appliance)) if wanted != NOBODY else None
        for copy in appliance.copies:
            moved = group if group is not None and group != copy.group else None
            if copy.rights != wanted or moved is not None:
                self._one.share_image(copy.identifier, wanted, moved)

    def enable(self, appliance: Appliance) -> None:
        """Let machines start from a version's images."""
        for copy in appliance.copies:
            if copy.state is State.DISABLED:
                self._one.enable_image(copy.identifier, enable=True)

    def disable(self, appliance: Appliance) -> None:
        """Let no machine start from a version's images any more; what is in use is left, and shows as drift."""
        for copy in appliance.copies:
            if copy.state is State.READY:
                try:
                    self._one.enable_image(copy.identifier, enable=False)
                except CloudImageInUseError:
                    continue

    def point(self, view: View, appliance: Appliance) -> None:
        """Have the appliance's VM template start machines from this version, for those who may use it."""
        wanted = machine.template_attributes(appliance, self._placing)
        key = appliance.marker.key
        template = view.template_of(key) or self._orphan(appliance)
        names = template_names(appliance)
        if template is None:
            template = self._make(appliance, wanted, names)
        changes = machine.to_write(template.attributes, wanted)
        if changes is not None:
            self._one.write_template(template.identifier, changes[0], replace=changes[1])
        self._rename(template, names)
        audience = _audience(appliance)
        rights = rights_of(audience, self._placing)
        group = self.group_of(audience)
        moved = group if group is not None and group != template.group else None
        if template.rights != rights or moved is not None:
            self._one.share_template(template.identifier, rights, moved)

    def leave(self, view: View, appliance: Appliance) -> None:
        """Have the VM template start machines from no longer this version: from another available one, or none."""
        template = view.template_of(appliance.marker.key)
        if template is None or appliance.first.identifier not in template.images:
            return
        others = replace(
            view,
            by_key={
                **view.by_key,
                appliance.marker.key: tuple(
                    each for each in view.of_key(appliance.marker.key) if each.identifier != appliance.identifier
                ),
            },
        )
        other = others.current(appliance.marker.key)
        if other is not None:
            self.point(view, other)
        else:
            self.hide(template)

    def hide(self, template: StoredTemplate) -> None:
        """Let nobody use a VM template but its owner, and mark it."""
        if template.rights != NOBODY:
            self._one.share_template(template.identifier, NOBODY, None)
        if not is_hidden(template):
            self._one.write_template(template.identifier, ((HIDDEN, "YES"),), replace=False)

    def write(self, copy: StoredImage, wanted: written.Written) -> None:
        """Write what Coppice writes on an image, where it is otherwise."""
        changes = machine.to_write(copy.attributes, wanted.attributes())
        if changes is not None:
            self._one.write_image(copy.identifier, changes[0], replace=changes[1])

    def _orphan(self, appliance: Appliance) -> StoredTemplate | None:
        """Return the VM template that the program before Coppice made for an adopted image."""
        if appliance.marker.adopted_from is None:
            return None
        for template in self._one.templates():
            names = document.texts(template.attributes)
            if template.images == (appliance.first.identifier,) and written.SITE not in names:
                return template
        return None

    def _make(self, appliance: Appliance, wanted: document.Attributes, names: Sequence[str]) -> StoredTemplate:
        last: CloudNameTakenError | None = None
        for name in names:
            try:
                self._one.allocate_template((("NAME", name), *wanted))
            except CloudNameTakenError as problem:
                self._refuse_half(appliance, taken_by(problem))
                last = problem
            except UNKNOWN_OUTCOME:
                # It may have been made all the same; if not, this is no time to go on.
                if self._look().template_of(appliance.marker.key) is None:
                    raise
            template = self._look().template_of(appliance.marker.key)
            if template is not None:
                return template
        raise last or self._one.failures.unreadable("a VM template was made, and is not there")

    def _refuse_half(self, appliance: Appliance, number: int | None) -> None:
        """Refuse to make a second VM template where the first has the name, and the pool left it out."""
        if number is None:
            return
        try:
            template = self._one.template(number)
        except (CloudForbiddenError, CloudImageGoneError):
            return
        said = document.texts(template.attributes)
        is_ours = all(said.get(name) == value for name, value in machine.identity_attributes(appliance)[:3])
        if is_ours and self._look().template_of(appliance.marker.key) is None:
            raise self._one.failures.unreadable(
                f"VM template {number}, which is there, is not among those that it names"
            )

    def _rename(self, template: StoredTemplate, names: Sequence[str]) -> None:
        if template.name in names:
            return
        for name in names:
            try:
                self._one.rename_template(template.identifier, name)
            except CloudNameTakenError:
                continue
            return


def image_names(marker: OwnershipMarker, name: str, datastore: str | None) -> tuple[str, ...]:
    """Return names for an image, the most readable first; the last is nobody else's.

    Args:
        marker: Of the image.
        name: What users see.
        datastore: Where it lies; None: where there is one only.
    """
    where = "" if datastore is None else f" @{datastore}"
    digest = tag(marker.site, str(marker.key), marker.version, str(marker.digest), datastore or "")
    return (
        document.object_name(name, f"{marker.version}{where}"),
        document.object_name(name, f"{marker.version}{where}", digest),
    )


def template_names(appliance: Appliance) -> tuple[str, ...]:
    """Return names for a VM template, the most readable first; the last is nobody else's."""
    presentation = written.read_presentation(appliance.first.attributes, name=appliance.first.name)
    digest = tag(appliance.marker.site, str(appliance.marker.key))
    return (document.object_name(presentation.name), document.object_name(presentation.name, digest))


def tag(*parts: str) -> str:
    """Return a short text that is the same for the same parts, and for no others."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _audience(appliance: Appliance) -> Audience:
    return written.read_presentation(appliance.first.attributes, name=appliance.first.name).audience
