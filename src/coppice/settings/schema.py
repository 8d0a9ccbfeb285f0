# SPDX-License-Identifier: Apache-2.0
"""The schema of ``coppice.toml``: every setting with its type, its default and its meaning.

The only place where a setting is declared: the loader, ``coppice config show`` and the reference page are made from it.
A key that is not declared is refused, save for what a ``[clouds.NAME]`` or ``[publishers.NAME]`` hands to its driver.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from coppice.model.identifiers import is_name
from coppice.model.image import DiskFormat
from coppice.settings.quantities import parse_duration, parse_size, shown

MIB = 1024**2
GIB = 1024**3
TIB = 1024**4

_SECRET_NAME = re.compile(
    r"(?:^|[_-])(password|passwd|passphrase|secret|token|apikey|api_key|private_key)$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a person writes for a setting; for messages and the reference page."""

    name: str


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip() and not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", value):
        return value
    raise ValueError(f"expected one line of text, found {shown(value)}")


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _switch(value: object) -> bool:
    # Text comes from variables. Nothing but the two words counts: a misspelt "flase" must not pass for either.
    known = {"true": True, "false": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in known:
        return known[value]
    raise ValueError(f"expected true or false, found {shown(value)}")


def _number(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError(f"expected a whole number above zero, found {shown(value)}")


def _share(value: object) -> float:
    if isinstance(value, str) and re.fullmatch(r"\d(\.\d{1,9})?", value):
        value = float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"expected a number from 0 to 1, found {shown(value)}")


def _size(value: object) -> int:
    size = parse_size(value)
    if size < 1:
        raise ValueError("expected a size above zero, found 0")
    return size


def _seconds(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("expected a duration above zero, found 0")
    return seconds


def _days(value: object) -> float:
    return parse_duration(value, bare_unit="d")


def _formats(value: object) -> tuple[str, ...]:
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    known = [str(each) for each in DiskFormat]
    if isinstance(names, list) and all(name in known for name in names):
        return tuple(dict.fromkeys(names))
    raise ValueError(
        f"expected a list out of {', '.join(known)}; found {names if isinstance(names, list) else shown(value)}"
    )


Text = Annotated[str, Kind("text"), BeforeValidator(_text)]
OptionalText = Annotated[str | None, Kind("text"), BeforeValidator(_optional_text)]
PathText = Annotated[str | None, Kind("path"), BeforeValidator(_optional_text)]
Switch = Annotated[bool, Kind("true or false"), BeforeValidator(_switch)]
Number = Annotated[int, Kind("whole number"), BeforeValidator(_number)]
Share = Annotated[float, Kind("number from 0 to 1"), BeforeValidator(_share)]
Size = Annotated[int, Kind("size"), BeforeValidator(_size)]
Seconds = Annotated[float, Kind("duration"), BeforeValidator(_seconds)]
Days = Annotated[float, Kind("duration in days"), BeforeValidator(_days)]
Formats = Annotated[tuple[str, ...], Kind("list of disk formats"), BeforeValidator(_formats)]


class Section(BaseModel):
    """A table of the file: what it does not declare is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FactorySection(Section):
    """How appliances are built."""

    mirror: OptionalText = Field(
        default=None, description="Package mirror to build from; when unset, the bootstrapper's own default."
    )
    build_timeout_seconds: Seconds = Field(default=3600.0, description="How long one build may take.")
    boot_timeout_seconds: Seconds = Field(default=1800.0, description="How long one boot test may take.")


class TransferSection(Section):
    """Bounds on what is fetched."""

    list_size_limit_bytes: Size = Field(default=16 * MIB, description="Largest image list that is read.")
    image_size_limit_bytes: Size = Field(
        default=64 * GIB, description="Largest image that is fetched, whatever its list says."
    )
    connect_timeout_seconds: Seconds = Field(default=10.0, description="How long to wait for a server to answer.")
    read_timeout_seconds: Seconds = Field(default=60.0, description="How long to wait for the next byte.")
    minimum_rate_bytes_per_second: Size = Field(
        default=1024, description="Slower than this, averaged over a minute, is stalled."
    )
    total_timeout_seconds: Seconds = Field(default=21600.0, description="How long one transfer may take.")
    attempts: Number = Field(default=3, description="How often a transfer is tried.")
    allow_private_addresses: Switch = Field(
        default=False,
        description="Whether servers on private and loopback addresses may be connected to.",
    )


class ListsSection(Section):
    """Bounds on image lists; how long one may be is `transfer.list_size_limit_bytes`."""

    maximum_images: Number = Field(default=10_000, description="Most images that a list may name.")
    maximum_depth: Number = Field(default=16, description="Deepest nesting of a list's objects and arrays.")
    maximum_text_bytes: Size = Field(default=64 * 1024, description="Longest text in a list.")
    maximum_title_bytes: Size = Field(default=4096, description="Longest title in a list.")


class SubscriptionsSection(Section):
    """How subscribed lists are refreshed."""

    parallel: Number = Field(default=8, description="How many lists are fetched at a time.")
    clock_skew_seconds: Seconds = Field(
        default=300.0, description="How far in the future a list may say that it was created."
    )
    warn_list_days: Days = Field(default=7.0, description="How long before a list expires a warning is given.")
    warn_image_days: Days = Field(default=14.0, description="How long before an image expires a warning is given.")
    warn_certificate_days: Days = Field(
        default=14.0, description="How long before an endorser's certificate expires a warning is given."
    )
    warn_revocation_days: Days = Field(
        default=2.0, description="How long before a certificate revocation list expires a warning is given."
    )
    archive_keep: Number = Field(default=50, description="How many verified versions of each list are kept.")


class PublishingSection(Section):
    """How lists are published."""

    retire_images_days: Days = Field(
        default=7.0, description="How long an image file stays after no published list names it any more."
    )


class ConversionSection(Section):
    """Bounds on conversion."""

    maximum_virtual_size_bytes: Size = Field(default=TIB, description="Largest disk, as a guest sees it.")
    memory_bytes: Size = Field(default=2 * GIB, description="Memory that the converter may use.")
    timeout_seconds: Seconds = Field(default=14400.0, description="How long one conversion may take.")


class PlanSection(Section):
    """How what is registered is treated."""

    grace_days: Days = Field(
        default=7.0, description="How long a superseded, expired or withdrawn image stays before it is removed."
    )
    maximum_withdrawn_share: Share = Field(
        default=0.5,
        description="A list that withdraws more than this share of its registered images is held for confirmation.",
    )


class _DriverSection(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    driver: Text = Field(description="The plug-in.")

    @model_validator(mode="after")
    def _keep_secrets_out(self) -> _DriverSection:
        found = sorted(_secrets("", self.model_extra or {}))
        if found:
            raise ValueError(
                f"{found[0]}: a secret does not belong here; put it into a file that only Coppice can read and write "
                f'{found[0]}_file = "/path", or name a variable with {found[0]}_env'
            )
        return self


class CloudSection(_DriverSection):
    """One cloud target; what is not declared here goes to its driver."""

    site: Text = Field(
        description="Identifier of this site, written on every image that Coppice registers. It decides which images "
        "are ours, so there is no default: two sites with the same identifier would remove each other's images.",
    )
    formats: Formats = Field(
        default=(), description="Disk formats that it takes, most wanted first; empty: the driver's."
    )


class PublisherSection(_DriverSection):
    """One place to publish to; what is not declared here goes to its driver."""


def _named(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"expected tables with a name each, found {shown(value)}")  # noqa: TRY004 - pydantic collects ValueError
    for name in value:
        if not is_name(name):
            raise ValueError(f"{name[:80]!r} cannot be a name: 1 to 64 characters out of a-z 0-9 . _ -")
    return value


class SettingsFile(Section):
    """The whole file."""

    state_directory: PathText = Field(
        default=None,
        description="Where Coppice keeps its files. When unset: /var/lib/coppice for root, "
        "$XDG_DATA_HOME/coppice (~/.local/share/coppice) for others.",
    )
    database_url: OptionalText = Field(
        default=None,
        description="The SQL database, as an SQLAlchemy URL without a password. When unset: "
        "SQLite in the state directory.",
    )
    definitions_directory: PathText = Field(
        default=None, description="Where definitions are looked for; when unset, those that Coppice ships."
    )
    factory: FactorySection = Field(default_factory=FactorySection, description="How appliances are built.")
    transfer: TransferSection = Field(default_factory=TransferSection, description="Bounds on what is fetched.")
    lists: ListsSection = Field(default_factory=ListsSection, description="Bounds on image lists.")
    subscriptions: SubscriptionsSection = Field(
        default_factory=SubscriptionsSection, description="How subscribed lists are refreshed."
    )
    publishing: PublishingSection = Field(default_factory=PublishingSection, description="How lists are published.")
    conversion: ConversionSection = Field(default_factory=ConversionSection, description="Bounds on conversion.")
    plan: PlanSection = Field(default_factory=PlanSection, description="How what is registered is treated.")
    clouds: Annotated[dict[str, CloudSection], BeforeValidator(_named)] = Field(
        default_factory=dict, description="Cloud targets, by name."
    )
    publishers: Annotated[dict[str, PublisherSection], BeforeValidator(_named)] = Field(
        default_factory=dict, description="Places to publish to, by name."
    )


def _secrets(prefix: str, options: dict[str, object]) -> list[str]:
    found: list[str] = []
    for key, value in options.items():
        if _SECRET_NAME.search(key):
            found.append(prefix + key)
        elif isinstance(value, dict):
            found += _secrets(f"{prefix}{key}.", value)
    return found
