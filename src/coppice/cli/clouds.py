# SPDX-License-Identifier: Apache-2.0
"""The clouds of the settings, opened for a command."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from coppice.errors import NotFoundError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.cli.context import Context
    from coppice.cloud.driver import Cloud


def open_clouds(context: Context, names: Sequence[str] = ()) -> dict[str, Cloud]:
    """Return the clouds ``names``, or all; none of them is asked anything yet.

    Of several, one with wrong settings is there as one that says so whatever is asked of it: the others go on.

    Raises:
        NotFoundError: There is no cloud of that name, or none at all.
        SettingsError: What the settings say is wrong, of the only one or of all.
    """
    from coppice.cloud.clouds import open_cloud
    from coppice.cloud.unopened import UnopenedCloud

    known = context.settings.clouds
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise NotFoundError(
                f"there is no cloud {name[:80]!r} in the settings",
                resolution=f"Did you mean {near[0]!r}?" if near else "`coppice cloud list` shows those that there are.",
            )
    if not known:
        raise NotFoundError(
            "no cloud is set up",
            resolution="Write a [clouds.NAME] table with driver and site into a file that `coppice config path` shows.",
        )
    opened: dict[str, Cloud] = {}
    wrong: list[SettingsError] = []
    for name in dict.fromkeys(names) or known:
        try:
            opened[name] = open_cloud(known[name])
        except SettingsError as problem:
            wrong.append(problem)
            opened[name] = UnopenedCloud(known[name], problem)
    if len(wrong) == len(opened):
        raise wrong[0]
    return opened
