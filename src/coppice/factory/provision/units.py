# SPDX-License-Identifier: Apache-2.0
"""Which units of a tree start by themselves, switched by the tree's own systemctl without anything being started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.definition.model import Services
    from coppice.factory.provision.cage import TreeCage

_STARTS = frozenset({"enabled", "enabled-runtime", "alias", "linked"})
_KNOWN = _STARTS | {"disabled", "static", "indirect", "generated", "masked", "masked-runtime", "linked-runtime", "bad"}


def switch_units(cage: TreeCage, services: Services, released: Iterable[str]) -> None:
    """Enable, disable and mask units as ``services`` says; ``released`` go back to what their package says.

    Raises:
        DefinitionError: A unit is not there, or cannot be started at boot by itself.
        BuildError: One could not be switched.
    """
    for unit in released:
        cage.ask("systemctl", "unmask", "--", unit)
        cage.ask("systemctl", "preset", "--", unit, ok=(0, 1))
    for unit in (*services.enabled, *services.disabled, *services.masked):
        _state(cage, unit)
    for unit in services.masked:
        cage.ask("systemctl", "mask", "--", unit)
    for unit in services.disabled:
        cage.ask("systemctl", "disable", "--", unit)
    for unit in services.enabled:
        if _state(cage, unit).startswith("masked"):
            cage.ask("systemctl", "unmask", "--", unit)
        cage.ask("systemctl", "enable", "--", unit)
        state = _state(cage, unit)
        if state not in _STARTS:
            raise DefinitionError(
                f"the unit {unit} cannot be enabled: it is {state}, so that only others can start it",
                resolution="Leave it out of services.enabled, or enable the unit that starts it.",
            )


def _state(cage: TreeCage, unit: str) -> str:
    # It ends with 1 for all that is not enabled, whether it is there or not.
    words = cage.ask("systemctl", "is-enabled", "--", unit, ok=range(256)).text().split()
    if not words or words[-1] not in _KNOWN:
        raise DefinitionError(
            f"there is no unit {unit} in the appliance",
            resolution="Correct its name in services, or add the package that brings it to build.packages.",
        )
    return words[-1]
