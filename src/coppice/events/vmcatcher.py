# SPDX-License-Identifier: Apache-2.0
"""What handlers that were written for vmcatcher 0.6 are given: its environment, name by name.

Of `EventKind` they know seven; the names on the wire are those of vmcatcher's code, ``ExpirePostfix`` among them, which
its manual misspells. Empty values are left out. Values are the list's own words: they can hold line breaks, quotes and
whatever a shell would obey if a handler let it. What no environment can hold (NUL) and what terminals obey is taken
out.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from coppice.events.model import EventKind
from coppice.events.payload import LISTED, MAX_LISTED_TEXT_BYTES, SESSION, cut_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.events.model import Event

PREFIX = "VMCATCHER_EVENT_"
TYPE = f"{PREFIX}TYPE"
CACHE_VARIABLES = ("VMCATCHER_CACHE_DIR_CACHE", "VMCATCHER_CACHE_DIR_DOWNLOAD", "VMCATCHER_CACHE_DIR_EXPIRE")
DATABASE_VARIABLE = "VMCATCHER_RDBMS"

TYPES: dict[EventKind, str] = {
    EventKind.CACHE_RUN_BEGUN: "ProcessPrefix",
    EventKind.IMAGE_UNCACHING: "ExpirePrefix",
    EventKind.IMAGE_UNCACHED: "ExpirePostfix",
    EventKind.IMAGE_CACHING: "AvailablePrefix",
    EventKind.IMAGE_CACHED: "AvailablePostfix",
    EventKind.CACHE_RUN_ENDED: "ProcessPostfix",
    EventKind.IMAGE_NEW: "SubscriptionImageNew",
}
"""Kind → what vmcatcher calls it, in the order of its run; the last is told when a list is refreshed."""
KINDS: dict[str, EventKind] = {name: kind for kind, name in TYPES.items()} | {"ExpirePosfix": EventKind.IMAGE_UNCACHED}
"""What vmcatcher calls it → kind; with the spelling of its manual."""

# Everything below U+0020 but the tabulator and the line feed; DEL; C1.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_OF_FACTS = {
    "DC_IDENTIFIER": "image",
    "HV_VERSION": "version",
    "FILENAME": "file_name",
    "IL_DC_IDENTIFIER": "list",
    "VO": "vo",
}
_OF_LISTED = {
    "DC_DESCRIPTION": "description",
    "DC_TITLE": "title",
    "HV_HYPERVISOR": "hypervisor",
    "HV_SIZE": "size_bytes",
    "HV_URI": "uri",
    "HV_FORMAT": "format",
    "SL_ARCH": "architecture",
    "SL_COMMENTS": "comments",
    "SL_OS": "os",
    "SL_OSNAME": "os_name",
    "SL_OSVERSION": "os_version",
    "AD_MPURI": "mpuri",
    "AD_USER_FULLNAME": "user_full_name",
    "AD_USER_GUID": "user_guid",
    "AD_USER_URI": "user_uri",
}
_CHECKSUM = "SL_CHECKSUM_SHA512"
_GROUP = "AD_GROUP"
_SESSION = "UUID_SESSION"
_SHA512 = "sha512:"
_SHA512_LENGTH = 128


def is_told(event: Event) -> bool:
    """Tell whether vmcatcher has such an event; it has none for an image that is fetched and handed out to nobody."""
    handed_out = event.kind in {EventKind.IMAGE_CACHING, EventKind.IMAGE_CACHED}
    return event.kind in TYPES and (not handed_out or bool(event.facts.get("file_name")))


def handler_environment(event: Event, *, cache: Path, database_url: str) -> dict[str, str] | None:
    """Return the variables that a handler gets for an event, beside those that it inherits.

    Args:
        event: What happened.
        cache: The directory of the cache.
        database_url: Of the database, without a password.

    Returns:
        The variables; None: vmcatcher has no such event.
    """
    if not is_told(event):
        return None
    listed = event.facts.get(LISTED)
    said: Mapping[str, object] = listed if isinstance(listed, dict) else {}
    values: dict[str, object] = {name: event.facts.get(key) for name, key in _OF_FACTS.items()}
    values |= {name: said.get(key) for name, key in _OF_LISTED.items()}
    digest, groups = event.facts.get("digest"), said.get("groups")
    if isinstance(digest, str) and digest.startswith(_SHA512):
        values[_CHECKSUM] = digest.removeprefix(_SHA512)
    if isinstance(groups, list):
        values[_GROUP] = ",".join(str(group) for group in groups)
    values[_SESSION] = event.facts.get(SESSION) or uuid.uuid5(uuid.NAMESPACE_OID, f"coppice-event:{event.at}")
    variables = {TYPE: TYPES[event.kind]}
    for name, value in values.items():
        text = _plain(value)
        if text and not (name == "FILENAME" and _is_path(text)):
            variables[PREFIX + name] = text
    if event.kind is not EventKind.IMAGE_NEW:
        # Where the images of a list are only told of, there is no cache yet.
        places = (cache / "handed-out", cache / "partial", cache / "expired")
        variables |= {name: str(place) for name, place in zip(CACHE_VARIABLES, places, strict=True)}
        variables[DATABASE_VARIABLE] = database_url
    return variables


def facts_of(variables: Mapping[str, str]) -> dict[str, object]:
    """Return the facts of an event that somebody else's vmcatcher told, as `coppice.events.payload` writes them."""

    def of(name: str) -> str | None:
        return _plain(variables.get(PREFIX + name)) or None

    facts: dict[str, object] = {key: of(name) for name, key in _OF_FACTS.items()}
    if _is_path(str(facts["file_name"] or "")):
        # Names of files come from elsewhere here: no hook is to be led out of its directory by one.
        facts["file_name"] = None
    listed: dict[str, object] = {key: of(name) for name, key in _OF_LISTED.items() if of(name) is not None}
    size, checksum, groups, session = str(listed.get("size_bytes", "")), of(_CHECKSUM), of(_GROUP), of(_SESSION)
    listed.pop("size_bytes", None)
    if size.isascii() and size.isdigit() and len(size) < 20:  # noqa: PLR2004 - more digits than any file is long
        listed["size_bytes"] = int(size)
    if checksum is not None and re.fullmatch(rf"[0-9A-Fa-f]{{{_SHA512_LENGTH}}}", checksum):
        facts["digest"] = listed["checksum"] = _SHA512 + checksum.lower()
    if groups is not None:
        listed["groups"] = [part for each in groups.split(",") if (part := each.strip())]
    if session is not None:
        facts[SESSION] = session
    facts = {key: value for key, value in facts.items() if value is not None}
    return facts | ({LISTED: listed} if listed else {})


def _plain(value: object) -> str:
    return "" if value is None else cut_text(_CONTROL.sub("", str(value)), MAX_LISTED_TEXT_BYTES)


def _is_path(name: str) -> bool:
    return "/" in name or name in {".", ".."}
