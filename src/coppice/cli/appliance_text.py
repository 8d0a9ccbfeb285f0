# SPDX-License-Identifier: Apache-2.0
"""An appliance and its versions, for people and for ``--json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from coppice.cli.output import format_size, moment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from coppice.catalogue.model import ApplianceVersion
    from coppice.cli.output import Output
    from coppice.model.appliance import Appliance


def describe_appliance(appliance: Appliance) -> dict[str, object]:
    """Return what an appliance is, for ``--json``."""
    return {
        "name": appliance.name,
        "identifier": appliance.identifier,
        "title": appliance.title,
        "description": appliance.description,
        "groups": appliance.groups,
        "operating_system": appliance.operating_system,
        "requirements": appliance.requirements,
        "hypervisor": appliance.hypervisor,
        "comments": appliance.comments,
        "keys": appliance.keys,
        "discontinued_on": appliance.discontinued_on,
        "successor": appliance.successor,
    }


def describe_version(version: ApplianceVersion) -> dict[str, object]:
    """Return what a version is, for ``--json``."""
    return {
        "name": version.appliance.name,
        "identifier": version.appliance.identifier,
        "title": version.appliance.title,
        "version": version.version,
        "path": version.path,
        "uri": getattr(version.image, "uri", None),
        "format": version.image.format,
        "size_bytes": version.image.size_bytes,
        "virtual_size_bytes": getattr(version.image, "virtual_size_bytes", None),
        "checksum": str(version.image.checksum),
        "created": version.created,
        "expires": version.expires,
        "discontinued_on": version.appliance.discontinued_on,
        "provenance": version.provenance,
        "built_on": [str(each) for each in version.built_on],
        "evidence": version.evidence,
    }


def render_appliance(output: Output, appliance: Appliance, lists: Sequence[str], now: datetime) -> None:
    """Print what an appliance is."""
    system = appliance.operating_system
    needs = {key: value for key, value in asdict(appliance.requirements).items() if value is not None}
    pairs: dict[str, object] = {
        "appliance": appliance.name,
        "identifier": appliance.identifier,
        "title": appliance.title,
        "description": appliance.description,
        "groups": ", ".join(appliance.groups),
        "system": f"{system.kind}, {system.distribution} {system.version}, {system.architecture}",
        "needs": ", ".join(f"{key} {value}" for key, value in needs.items()),
        "hypervisor": appliance.hypervisor,
        "comments": appliance.comments,
        "carried by": ", ".join(lists),
        **{key: str(value) for key, value in appliance.keys.items()},
    }
    if appliance.discontinued_on is not None:
        pairs |= {"discontinued": moment(appliance.discontinued_on, now), "successor": appliance.successor}
    output.pairs(pairs)


def render_versions(output: Output, versions: Sequence[ApplianceVersion], now: datetime) -> None:
    """Print versions, one a line."""
    output.table(
        ["appliance", "version", "format", "size", "created", "expires", "identifier"],
        [
            [
                version.appliance.name,
                version.version,
                version.image.format,
                format_size(version.image.size_bytes),
                moment(version.created, now),
                moment(version.expires, now) if version.expires else "with its list",
                version.appliance.identifier,
            ]
            for version in versions
        ],
    )
