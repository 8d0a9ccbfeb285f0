# SPDX-License-Identifier: Apache-2.0
"""The part of ``coppice status`` that is about clouds: how each appliance stands in each, as data and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cli.output import age, moment

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.cli.output import Output
    from coppice.cloud.model import RegisteredImage
    from coppice.settings.model import Settings
    from coppice.workflows.outlook import ApplianceOutlook, NextStep
    from coppice.workflows.site_outlook import CloudOutlook, SiteOutlook


_WORDS = {
    "available": "make available",
    "superseded": "supersede",
    "expired": "expire",
    "withdrawn": "withdraw",
    "staged": "stage",
    "revoked": "revoke",
}
"""What it is called to bring an image to a state."""


def clouds_as_data(settings: Settings, found: SiteOutlook | None) -> list[dict[str, object]]:
    """Return each cloud of the settings, with what it was seen to have."""
    seen = {} if found is None else {each.cloud: each for each in found.clouds}
    rows = []
    for name, target in settings.clouds.items():
        last = seen.get(name)
        row: dict[str, object] = {
            "name": name,
            "driver": target.driver,
            "site": target.site,
            "formats": list(target.formats),
            "seen_at": None if last is None else last.seen_at,
            "tried_at": None if last is None else last.tried_at,
            "error_code": None if last is None else last.error_code,
            "error": None if last is None else last.error,
            "images": None if last is None or last.seen_at is None else _count(last),
        }
        rows.append(row)
    return rows


def appliances_as_data(found: SiteOutlook | None, now: datetime) -> list[dict[str, object]]:
    """Return how each appliance stands in each cloud, complete."""
    return [_appliance(each, now) for cloud in (found.clouds if found else ()) for each in cloud.appliances]


def show_clouds(output: Output, settings: Settings, found: SiteOutlook | None, now: datetime) -> None:
    """Print the clouds, and how each appliance stands in them."""
    rows = clouds_as_data(settings, found)
    if not rows:
        return
    output.line()
    output.table(
        ["cloud", "driver", "images", "seen", "last error"],
        [
            [each["name"], each["driver"], each["images"], _seen(each["seen_at"], now), each["error_code"]]
            for each in rows
        ],
    )
    appliances = [each for cloud in (found.clouds if found else ()) for each in cloud.appliances]
    if appliances:
        output.line()
        output.table(
            ["cloud", "appliance", "listed", "registered", "standing", "state", "since", "next"],
            [
                [
                    each.cloud,
                    each.title,
                    each.listed,
                    each.registered,
                    each.standing,
                    each.state,
                    None if each.since is None else age(each.since, now),
                    describe_step(each.next_step, now),
                ]
                for each in appliances
            ],
        )


def cloud_messages(found: SiteOutlook | None) -> tuple[str, ...]:
    """Return what of the clouds needs somebody's attention, one sentence each."""
    said = []
    for cloud in found.clouds if found else ():
        if cloud.error is not None:
            said.append(f"{cloud.cloud}: it gave no answer when it was asked last: {cloud.error}")
        held = sum(1 for each in cloud.appliances if each.next_step is not None and each.next_step.held)
        if held:
            said.append(f"{cloud.cloud}: {held} held for confirmation; `coppice plan --cloud {cloud.cloud}` says why.")
        said += [
            f"{cloud.cloud}: images of {len(each.images)} lists have the name {each.name!r}; {{list}} or {{vo}} in "
            "image_name tells them apart."
            for each in cloud.shared_names
        ]
        said += cloud.unused
    return tuple(said)


def describe_step(step: NextStep | None, now: datetime) -> str | None:
    """Return what happens next, and when, in words."""
    if step is None:
        return None
    what = f"{_WORDS.get(step.what, step.what.replace('-', ' '))} {step.version}"
    if step.held:
        return f"{what}: held for confirmation"
    return f"{what} with the next run" if step.at is None else f"{what} {age(step.at, now)}"


def _seen(at: object, now: datetime) -> str:
    return "never" if at is None else moment(at, now)  # type: ignore[arg-type]


def _count(cloud: CloudOutlook) -> int:
    return sum(len(each.versions) for each in cloud.appliances)


def _appliance(each: ApplianceOutlook, now: datetime) -> dict[str, object]:
    return {
        "cloud": each.cloud,
        "list": each.key.list_identifier,
        "image": each.key.image_identifier,
        "title": each.title,
        "vo": each.vo,
        "standing": str(each.standing),
        "listed": each.listed,
        "registered": each.registered,
        "state": None if each.state is None else str(each.state),
        "since": each.since,
        "age_seconds": None if each.since is None else max(0, round((now - each.since).total_seconds())),
        "expires": each.expires,
        "next": each.next_step,
        "versions": [_version(image) for image in each.versions],
    }


def _version(image: RegisteredImage) -> dict[str, object]:
    marker = image.marker
    return {
        "cloud_identifier": image.cloud_identifier,
        "name": image.name,
        "version": marker.version,
        "digest": str(marker.digest),
        "state": str(marker.state),
        "since": marker.state_since,
        "expires": marker.expires,
        "reason": marker.reason,
        "pin": marker.pin,
        "set": marker.set_identifier,
        "set_version": marker.set_version,
        "adopted_from": marker.adopted_from,
        "ready": image.ready,
        "problem": image.problem,
        "drift": image.drift,
    }
