# SPDX-License-Identifier: Apache-2.0
"""What registrations left behind: VM templates without an image, files in datastores without one.

``oned`` leaves the file of an image that is deleted in state ERROR after its copy had begun, or by force while it is
copied. Nobody can ask it for such files; on the front-end itself they can be seen.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.cloud.driver import Leftover
from coppice.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.cloud.opennebula.front_end import FrontEnd
    from coppice.cloud.opennebula.objects import StoredTemplate
    from coppice.cloud.opennebula.view import View

QUIET_SECONDS = 3600.0
"""A file that was written to within this time may still be at work."""
MAX_FILES = 100_000
_FILE = re.compile(r"[0-9a-f]{32}")
"""How the datastores' drivers name an image's file (``generate_image_hash``)."""
_TEMPLATE = "template/"


def find(cloud: str, front_end: FrontEnd, view: View) -> tuple[Leftover, ...]:
    """Return what is left behind.

    Raises:
        CloudError: It could not be found out.
    """
    templates = [
        Leftover(
            cloud=cloud,
            identifier=f"{_TEMPLATE}{template.identifier}",
            what=f"VM template {template.name!r}: no image of it is there any more",
            can_be_cleared=True,
        )
        for template in _alone(view)
    ]
    return (*templates, *_files(cloud, front_end))


def clear(leftover: Leftover, front_end: FrontEnd, view: View) -> None:
    """Delete a VM template that is still alone.

    Raises:
        CloudError: It is a file, or could not be deleted.
    """
    if not leftover.identifier.startswith(_TEMPLATE):
        raise CloudError(
            f"cloud {leftover.cloud}: {leftover.identifier} is not Coppice's to delete",
            resolution="See on the front-end that no image has it as its SOURCE (oneimage list -x), then delete it.",
        )
    for template in _alone(view):
        if leftover.identifier == f"{_TEMPLATE}{template.identifier}":
            front_end.delete_template(template.identifier)


def _alone(view: View) -> list[StoredTemplate]:
    with_images = {id(view.template_of(key)) for key in view.by_key}
    return [template for template in view.templates if id(template) not in with_images]


def _files(cloud: str, front_end: FrontEnd) -> Iterator[Leftover]:
    places = [place for place in front_end.datastores() if place.holds_images and _is_here(place.base_path)]
    if not places or not front_end.sees_all():
        return
    known = {Path(image.source).name for image in front_end.all_images()}
    for place in places:
        for path in _strays(Path(place.base_path), known):
            yield Leftover(
                cloud=cloud,
                identifier=str(path),
                what=f"a file in datastore {place.name} that no image of this OpenNebula accounts for; whose "
                "registration left it cannot be told",
                can_be_cleared=False,
            )


def _is_here(base_path: str) -> bool:
    try:
        return base_path.startswith("/") and Path(base_path).is_dir()
    except OSError:
        return False


def _strays(folder: Path, known: set[str]) -> list[Path]:
    found: list[Path] = []
    try:
        for number, path in enumerate(sorted(folder.iterdir())):
            if number >= MAX_FILES:
                break
            if _FILE.fullmatch(path.name) and path.name not in known and not path.is_symlink():
                state = path.stat()
                if time.time() - max(state.st_mtime, state.st_ctime) > QUIET_SECONDS:
                    found.append(path)
    except OSError as problem:
        # It is oneadmin's folder, which Coppice's user need not be able to read.
        if isinstance(problem, PermissionError):
            return []
        raise CloudError(
            f"the datastore's folder {folder} cannot be looked at: {problem.strerror}",
            resolution="Nothing was changed. See whether its disk is well, then run again.",
        ) from problem
    return found
