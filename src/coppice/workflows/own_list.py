# SPDX-License-Identifier: Apache-2.0
"""Own list: what an image list of the site's own catalogue carries now, with its images where they lie on this machine.

Nothing of it depends on when it is asked for: two answers differ only when the catalogue changed between them.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coppice.catalogue.consistency import check_contents
from coppice.catalogue.selections import Selections
from coppice.imagelist.compose import compose
from coppice.model.endorser import DistinguishedName, Endorser

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.imagelist.model import ImageList

_NO_DATE = datetime(2000, 1, 1, tzinfo=UTC)
"""Stands for the dates of the list itself, which whoever asks for it gives it."""
_NAME = DistinguishedName.of(("CN", "catalogue"))
_NOBODY = Endorser(name="catalogue", email="catalogue@localhost", subject=_NAME, issuer=_NAME)


def own_list(database: Database, name: str, clock: Clock) -> ImageList:
    """Return what the list ``name`` of this database carries; its own dates say nothing, and nobody endorses it.

    Raises:
        NotFoundError: There is no such list.
        InconsistentListError: It carries an appliance twice, or a set is not whole.
    """
    selection = Selections(database, clock).get(name)
    check_contents(selection)
    content = compose(
        selection,
        version="0",
        now=_NO_DATE,
        endorser=_NOBODY,
        image_uris={
            each.appliance.name: each.path.absolute().as_uri()
            for each in selection.listed_versions
            if each.path is not None
        },
        list_uri=f"catalogue:{selection.name}",
    ).content
    ends = content.validity.expires
    # An end that is no more than the list's says nothing about the image.
    images = tuple(
        replace(each, user=None, expires=None if each.expires == ends else each.expires) for each in content.images
    )
    return replace(content, endorsers=(), images=images)
