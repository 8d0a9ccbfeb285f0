# SPDX-License-Identifier: Apache-2.0
"""What users of a cloud in memory find of images and of sets, in lives by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.memory import MemoryCloud
from coppice.testing.chance_lists import LISTS, SET_PARTS
from coppice.testing.desired import desired_image

if TYPE_CHECKING:
    from coppice.model.identifiers import ImageKey

_OF_SETS = frozenset(desired_image(image, of_list=name).key for name in LISTS for image in SET_PARTS)


def is_of_set(key: ImageKey) -> bool:
    """Tell whether an image is a part of a set."""
    return key in _OF_SETS


def usable(cloud: MemoryCloud) -> set[ImageKey]:
    """Return the images of which users find a version."""
    return {
        image.marker.key
        for image in MemoryCloud.describe(cloud)
        if (stored := cloud.images[image.cloud_identifier]).listed and stored.startable and stored.ready
    }


def set_versions(cloud: MemoryCloud) -> dict[str, set[str]]:
    """Return which versions of the parts of each list's set users find."""
    versions: dict[str, set[str]] = {}
    for image in MemoryCloud.describe(cloud):
        stored = cloud.images[image.cloud_identifier]
        if is_of_set(image.marker.key) and stored.listed and stored.startable and stored.ready:
            versions.setdefault(image.marker.key.list_identifier, set()).add(image.marker.version)
    return versions


def whole_sets(cloud: MemoryCloud) -> set[str]:
    """Return the lists of whose set users find one release, all of it."""
    found = usable(cloud)
    return {
        name
        for name, versions in set_versions(cloud).items()
        if len(versions) == 1 and sum(key.list_identifier == name and is_of_set(key) for key in found) == len(SET_PARTS)
    }
