# SPDX-License-Identifier: Apache-2.0
"""Lists that change by chance: for `coppice.testing.life_machine`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.testing.desired import NOW, content_of, desired_image, desired_list

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.cloud.model import DesiredList

LISTS = ("a", "b")
SINGLES = ("debian", "alma", "rocky", "suse")
SET_PARTS = ("portal", "database")
SET = "a-set"
LIFETIME = timedelta(days=30)


@dataclass(slots=True)
class Published:
    """A list as its publisher has it."""

    version: int = 1
    images: dict[str, int] = field(default_factory=dict)
    """Version of each image that it names."""
    release: int = 0
    """Of the set; 0: it names none."""
    reachable: bool = True
    subscribed: bool = True
    created: datetime = NOW

    def renew(self, now: datetime) -> None:
        """Sign it anew."""
        self.version += 1
        self.created = now

    def listed(self, name: str) -> DesiredList:
        """Return the list of that name as a site knows it."""
        ends = self.created + LIFETIME
        images = []
        for image, version in sorted(self.images.items()):
            content = content_of(f"{name}/{image}", str(version))
            desired = desired_image(
                image, str(version), of_list=name, list_version=str(self.version), expires=ends, content=content
            )
            if image in SET_PARTS:
                desired = replace(desired, set_identifier=SET, set_version=str(self.release))
            images.append(desired)
        return desired_list(*images, name=name, version=str(self.version), expires=ends)
