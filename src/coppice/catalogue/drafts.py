# SPDX-License-Identifier: Apache-2.0
"""What is being edited: an image list or an appliance, and the keys that each has."""

from __future__ import annotations

from dataclasses import dataclass, field

from coppice.catalogue import keys
from coppice.catalogue.keys import Key, find_key, set_key, unset_key

LIST_KEYS = (
    Key(
        name="title", wire="dc:title", attribute="title", read=keys.line, required=True, meaning="for people, one line"
    ),
    Key(
        name="description",
        wire="dc:description",
        attribute="description",
        read=keys.paragraph,
        empty="",
        meaning="for people, a paragraph",
    ),
    Key(
        name="source",
        wire="dc:source",
        attribute="source",
        read=keys.line,
        required=True,
        meaning="where the list comes from, as a rule a URL",
    ),
    Key(name="vo", wire="ad:vo", attribute="vo", read=keys.vo, meaning="virtual organisation"),
    Key(
        name="lifetime",
        attribute="lifetime_days",
        read=keys.days,
        required=True,
        meaning="days from signing to expiry, 1 to 3650",
    ),
    Key(
        name="endorser",
        attribute="endorser",
        read=keys.name,
        required=True,
        meaning="who signs it as a rule",
    ),
    Key(name="publisher", attribute="publisher", read=keys.name, required=True, meaning="a publisher of the settings"),
    Key(
        name="version",
        wire="hv:version",
        attribute="last_version",
        read=keys.version,
        required=True,
        meaning="counts as published: the next one is one higher; it can only rise",
    ),
    Key(name="swid", wire="ad:swid", read=keys.line, meaning="number of the appliance in the marketplace"),
)
"""The keys of an image list."""

LIST_COMPUTED = {
    "identifier": "it was minted once, and subscribers know the list by it",
    "dc:identifier": "it was minted once, and subscribers know the list by it",
    "dc:date:created": "it is the time of signing",
    "dc:date:expires": "it is the time of signing and `lifetime`",
    "hv:uri": "the publisher says where the list is",
    "hv:images": "`coppice imagelist add` and `remove` choose what is listed",
    "hv:endorser": "it is the endorser who signs",
    "ad:num_of_images": "it is counted by those who need it",
}
"""Keys of an image list that nobody sets."""

APPLIANCE_KEYS = (
    Key(
        name="title", wire="dc:title", attribute="title", read=keys.line, required=True, meaning="for people, one line"
    ),
    Key(
        name="description",
        wire="dc:description",
        attribute="description",
        read=keys.paragraph,
        empty="",
        meaning="for people, a paragraph",
    ),
    Key(
        name="groups",
        wire="ad:group",
        attribute="groups",
        read=keys.groups,
        empty=(),
        meaning="categories, separated by commas",
    ),
    Key(name="os.kind", wire="sl:os", attribute="os_kind", read=keys.line, required=True, meaning="`Linux` …"),
    Key(
        name="os.distribution",
        wire="sl:osname",
        attribute="os_distribution",
        read=keys.line,
        required=True,
        meaning="`Debian` …",
    ),
    Key(name="os.version", wire="sl:osversion", attribute="os_version", read=keys.line, required=True, meaning="`12`"),
    Key(
        name="os.architecture",
        wire="sl:arch",
        attribute="architecture",
        read=keys.line,
        required=True,
        meaning="`x86_64` …",
    ),
    Key(
        name="minimum_cores",
        wire="hv:core_minimum",
        attribute="minimum_cores",
        read=keys.number,
        meaning="processor cores",
    ),
    Key(
        name="minimum_ram_mib",
        wire="hv:ram_minimum",
        attribute="minimum_ram_mib",
        read=keys.number,
        meaning="memory in MiB",
    ),
    Key(
        name="minimum_disk_bytes",
        wire="coppice:disk_minimum",
        attribute="minimum_disk_bytes",
        read=keys.size,
        meaning="root disk in bytes, or with a unit (`10 GiB`)",
    ),
    Key(
        name="recommended_cores",
        wire="ad:core_recommended",
        attribute="recommended_cores",
        read=keys.number,
        meaning="processor cores",
    ),
    Key(
        name="recommended_ram_mib",
        wire="ad:ram_recommended",
        attribute="recommended_ram_mib",
        read=keys.number,
        meaning="memory in MiB",
    ),
    Key(
        name="hypervisor",
        wire="hv:hypervisor",
        attribute="hypervisor",
        read=keys.line,
        required=True,
        meaning="`KVM` …",
    ),
    Key(name="comments", wire="sl:comments", attribute="comments", read=keys.paragraph, empty="", meaning="for people"),
    Key(name="base_mpuri", wire="ad:base_mpuri", read=keys.uri, meaning="marketplace URI of the appliance"),
    Key(
        name="mpuri",
        wire="ad:mpuri",
        read=keys.mpuri,
        meaning="marketplace URI of a version; `{version}` in it stands for the image's version",
    ),
    Key(name="appid", wire="ad:appid", read=keys.line, meaning="number of the appliance in the marketplace"),
    Key(name="user.fullname", wire="ad:user:fullname", read=keys.line, meaning="who brought it into the marketplace"),
    Key(name="user.guid", wire="ad:user:guid", read=keys.line, meaning="that person's identifier"),
    Key(name="user.uri", wire="ad:user:uri", read=keys.uri, meaning="that person's page"),
)
"""The keys of an appliance."""

APPLIANCE_COMPUTED = {
    "identifier": "it was minted once, and subscribers know the image by it",
    "dc:identifier": "it was minted once, and subscribers know the image by it",
    "hv:version": "a version never changes: add a new one",
    "hv:uri": "the publisher says where the image is",
    "hv:size": "it is the file's",
    "hv:format": "it is the file's",
    "sl:checksum:sha512": "it is the file's",
    "dc:date:expires": "`coppice appliance version edit` sets it for a version",
}
"""Keys of an image that nobody sets."""


@dataclass(slots=True, kw_only=True)
class SelectionDraft:
    """An image list while it is edited; attributes as in `coppice.catalogue.model.Selection`."""

    name: str
    title: str
    description: str
    source: str
    vo: str | None
    endorser: str
    publisher: str
    lifetime_days: int
    last_version: str | None
    keys: dict[str, object] = field(default_factory=dict)

    def set(self, key: str, value: object) -> None:
        """Set a key of `LIST_KEYS`, or one of the reader's own.

        Raises:
            InconsistentListError: There is no such key, it cannot be set, or the value cannot be its.
        """
        set_key(self, LIST_KEYS, LIST_COMPUTED, key, value)

    def unset(self, key: str) -> None:
        """Take a key away.

        Raises:
            InconsistentListError: There is no such key, it is not set, or it cannot be missing.
        """
        unset_key(self, LIST_KEYS, LIST_COMPUTED, key)


@dataclass(slots=True, kw_only=True)
class ApplianceDraft:
    """An appliance while it is edited; attributes as in `coppice.model.appliance.Appliance` and what it holds.

    Attributes:
        edited: Names of the keys that a person set: a later build does not write over them.
    """

    name: str
    title: str
    description: str
    groups: tuple[str, ...]
    os_kind: str
    os_distribution: str
    os_version: str
    architecture: str
    hypervisor: str
    comments: str
    minimum_cores: int | None = None
    minimum_ram_mib: int | None = None
    minimum_disk_bytes: int | None = None
    recommended_cores: int | None = None
    recommended_ram_mib: int | None = None
    keys: dict[str, object] = field(default_factory=dict)
    edited: set[str] = field(default_factory=set)

    def set(self, key: str, value: object) -> None:
        """Set a key of `APPLIANCE_KEYS`, or one of the reader's own.

        Raises:
            InconsistentListError: There is no such key, it cannot be set, or the value cannot be its.
        """
        found = set_key(self, APPLIANCE_KEYS, APPLIANCE_COMPUTED, key, value)
        if found is not None and found.attribute is not None:
            self.edited.add(found.attribute)

    def unset(self, key: str) -> None:
        """Take a key away; the next build or descriptor says it again. What cannot be missing stays until then.

        Raises:
            InconsistentListError: There is no such key, it is not set, or it cannot be missing.
        """
        found = find_key(APPLIANCE_KEYS, APPLIANCE_COMPUTED, key)
        if found is None or found.attribute not in self.edited or not found.required:
            found = unset_key(self, APPLIANCE_KEYS, APPLIANCE_COMPUTED, key)
        if found is not None and found.attribute is not None:
            self.edited.discard(found.attribute)
