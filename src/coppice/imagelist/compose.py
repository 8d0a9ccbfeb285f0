# SPDX-License-Identifier: Apache-2.0
"""From a selection of the catalogue to the content of an image list: pure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.errors import InputError
from coppice.imagelist.model import ImageList, ListedImage
from coppice.model.validity import Validity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.catalogue.model import ApplianceVersion, Selection
    from coppice.model.endorser import Endorser

_LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)", re.DOTALL)


def next_version(last: str | None) -> str:
    """Return the list version after ``last``: its last number plus one, ``1`` where there is none."""
    if last is None:
        return "1"
    match = _LAST_NUMBER.search(last)
    if match is None:
        return f"{last}.1"
    return f"{last[: match.start()]}{int(match.group()) + 1:0{len(match.group())}d}"


def compose(
    selection: Selection,
    *,
    version: str,
    now: datetime,
    endorser: Endorser,
    image_uris: Mapping[str, str],
    list_uri: str,
) -> ImageList:
    """Return the list that carries the newest version of each selected appliance.

    Args:
        selection: What goes into it.
        version: Of the list.
        now: When it is created, to the second.
        endorser: Who vouches for it.
        image_uris: Where each image will be, by appliance name.
        list_uri: Where the list will be.

    Raises:
        InputError: An image has no URI.
    """
    created = now.replace(microsecond=0)
    expires = created + timedelta(days=selection.lifetime_days)
    missing = [known.appliance.name for known in selection.versions if known.appliance.name not in image_uris]
    if missing:
        raise InputError(f"no address is known for the images of: {', '.join(missing)}")
    return ImageList(
        identifier=selection.identifier,
        version=version,
        title=selection.title,
        description=selection.description,
        source=selection.source,
        uri=list_uri,
        validity=Validity(created=created, expires=expires),
        endorsers=(endorser,),
        vo=selection.vo,
        images=tuple(
            _listed(known, uri=image_uris[known.appliance.name], list_uri=list_uri, expires=expires)
            for known in selection.versions
        ),
    )


def _listed(known: ApplianceVersion, *, uri: str, list_uri: str, expires: datetime) -> ListedImage:
    appliance = known.appliance
    # There is a place for both in the list, and some readers need them there.
    base_mpuri = f"{list_uri}#{appliance.identifier}"
    return ListedImage(
        identifier=appliance.identifier,
        version=known.version,
        title=appliance.title,
        description=appliance.description,
        uri=uri,
        size_bytes=known.image.size_bytes,
        checksum=known.image.checksum,
        declared_format=str(known.image.format),
        operating_system=appliance.operating_system,
        hypervisor="KVM",
        comments="",
        expires=known.expires or expires,
        requirements=appliance.requirements,
        groups=appliance.groups,
        mpuri=f"{base_mpuri}:{known.version}",
        base_mpuri=base_mpuri,
    )
