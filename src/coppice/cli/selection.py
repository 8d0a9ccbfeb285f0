# SPDX-License-Identifier: Apache-2.0
"""An image list of the catalogue, and what differs between two versions of one, for people and for ``--json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cli.list_changes import shown_value
from coppice.cli.output import format_size, moment

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.catalogue.model import ApplianceVersion, RecordedPublication, Selection
    from coppice.cli.output import Output
    from coppice.formats.list_difference import FieldDifference, ListDifference


def describe_selection(selection: Selection) -> dict[str, object]:
    """Return what a list is and carries, for ``--json``."""
    return {
        "name": selection.name,
        "identifier": selection.identifier,
        "title": selection.title,
        "description": selection.description,
        "source": selection.source,
        "endorser": selection.endorser,
        "endorsers": selection.endorsers,
        "publisher": selection.publisher,
        "lifetime_days": selection.lifetime_days,
        "last_version": selection.last_version,
        "vo": selection.vo,
        "keys": selection.keys,
        "appliances": [_carried(each) for each in selection.versions],
        "sets": [
            {
                "name": each.name,
                "identifier": each.identifier,
                "version": each.release.version if each.release is not None else None,
                "expires": each.expires,
                "members": [_carried(member) for member in each.release.members] if each.release is not None else [],
            }
            for each in selection.sets
        ],
    }


def render_selection(output: Output, selection: Selection, now: datetime) -> None:
    """Print what a list is and carries."""
    output.pairs(
        {
            "list": selection.name,
            "identifier": selection.identifier,
            "title": selection.title,
            "description": selection.description,
            "source": selection.source,
            "vo": selection.vo,
            "endorsers": ", ".join(selection.endorsers),
            "publisher": selection.publisher,
            "published version": selection.last_version,
            "lifetime": f"{selection.lifetime_days} days",
            **{key: shown_value(value) for key, value in selection.keys.items()},
        }
    )
    rows = [_row(each, None, now) for each in selection.versions]
    for each in selection.sets:
        if each.release is None:
            rows.append(["-", "-", "-", "-", f"{each.name}, not released yet"])
            continue
        rows += [_row(member, f"{each.name} {each.release.version}", now) for member in each.release.members]
    output.table(["appliance", "version", "size", "ends", "set"], rows)


def describe_entry(entry: RecordedPublication) -> dict[str, object]:
    """Return an entry of a publication history, for ``--json``."""
    return {
        "version": entry.version,
        "state": str(entry.state),
        "signed_at": entry.signed_at,
        "published_at": entry.published_at,
        "expires": entry.expires,
        "signer": entry.signer,
        "endorser": entry.endorser,
        "payload": str(entry.payload),
        "uri": entry.uri,
        "images": entry.images,
    }


def render_difference(output: Output, difference: ListDifference) -> None:
    """Print what differs between two versions of a list."""
    output.heading(f"from {difference.before or 'nothing'} to version {difference.after}")
    rows: list[list[object]] = [["list", *_field(each)] for each in difference.fields]
    for image in difference.images:
        rows.append([image.title, str(image.kind), image.before, image.after])
        rows += [["", *_field(each)] for each in image.fields if each.key != "hv:version"]
    output.table(["what", "change", "before", "after"], rows)
    output.line(f"images that are the same: {difference.unchanged}")


def _field(field: FieldDifference) -> list[str]:
    return [field.key, shown_value(field.before), shown_value(field.after)]


def _carried(version: ApplianceVersion) -> dict[str, object]:
    return {"name": version.appliance.name, "version": version.version}


def _row(version: ApplianceVersion, part_of: str | None, now: datetime) -> list[object]:
    ends = [each for each in (version.expires, version.appliance.discontinued_on) if each is not None]
    return [
        version.appliance.name,
        version.version,
        format_size(version.image.size_bytes),
        moment(min(ends), now) if ends else "with the list",
        part_of,
    ]
