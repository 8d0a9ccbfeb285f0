# SPDX-License-Identifier: Apache-2.0
"""Who may use an image: its visibility and its members, brought to what they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.model import Visibility
from coppice.cloud.openstack.images import operation
from coppice.cloud.openstack.shape import visibility_of
from coppice.errors import CloudError
from coppice.log import get_logger

if TYPE_CHECKING:
    from coppice.cloud.model import Presentation
    from coppice.cloud.openstack.images import GlanceImage, Images
    from coppice.cloud.openstack.settings import OpenStackSettings

_log = get_logger(__name__)


def share(images: Images, settings: OpenStackSettings, image: GlanceImage, presentation: Presentation) -> None:
    """Bring an image's visibility and members to what its presentation says.

    Projects that are no members any more lose it before new ones get it, and before anybody else sees it. A project
    that these credentials are not good for accepts an image itself; by its identifier, it can be used at once.

    Raises:
        CloudError: It could not be done.
    """
    audience = presentation.audience
    wanted = visibility_of(audience, settings.visibility)
    members = frozenset(audience.members) if wanted is Visibility.SHARED else frozenset()
    there: dict[str, str] = {}
    if image.visibility == Visibility.SHARED:
        # Glance keeps the members of an image that is not shared any more, and they are back when it is.
        there = images.members(image.identifier)
        for project in sorted(set(there) - members):
            images.remove_member(image.identifier, project)
    if image.visibility != wanted:
        images.change(
            image.identifier,
            f"make image {image.identifier} {wanted}",
            lambda current: [operation("visibility", str(wanted))] if current.visibility != wanted else [],
        )
        if wanted is Visibility.SHARED:
            there = images.members(image.identifier)
            for project in sorted(set(there) - members):
                images.remove_member(image.identifier, project)
    for project in sorted(members):
        if project not in there:
            images.add_member(image.identifier, project)
        if settings.accept_members and there.get(project) != "accepted":
            _accept(images, image.identifier, project)


def _accept(images: Images, identifier: str, project: str) -> None:
    try:
        images.accept(identifier, project)
    except CloudError as problem:
        _log.warning(
            "an image is shared with a project that has to accept it itself",
            extra={
                "fields": {
                    "cloud": images.name,
                    "image": identifier,
                    "project": project,
                    "code": problem.code,
                    "reason": problem.message,
                }
            },
        )
