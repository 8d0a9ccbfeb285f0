# SPDX-License-Identifier: Apache-2.0
"""`UnopenedCloud`: stands for a cloud whose settings are wrong, so that what is right with the others goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from coppice.conversion.model import Formats
    from coppice.errors import SettingsError
    from coppice.settings.clouds import CloudSettings


class UnopenedCloud:
    """A cloud of which nothing can be had but the error that its settings are.

    Args:
        settings: Of the target.
        problem: What is wrong with them.
    """

    formats: Formats = ()

    def __init__(self, settings: CloudSettings, problem: SettingsError) -> None:
        self.name = settings.name
        self.site = settings.site
        self._problem = problem

    def describe(self) -> NoReturn:
        """Say what is wrong.

        Raises:
            SettingsError: Always.
        """
        raise self._problem

    def _refuse(self, *_asked: object) -> NoReturn:
        raise self._problem

    register = update_metadata = change_state = in_use = remove = _refuse
