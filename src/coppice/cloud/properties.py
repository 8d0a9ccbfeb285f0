# SPDX-License-Identifier: Apache-2.0
"""Ownership in the image's own properties: the only place that writes or reads them.

An image without ``coppice_site``, or with another site's, is somebody else's and is never touched. A marker of this
site that cannot be read is an error that names the image, never a guess.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from datetime import datetime
from typing import TYPE_CHECKING

from coppice.clock import require_aware, to_rfc3339
from coppice.cloud.model import ImageState, OwnershipMarker, Presentation
from coppice.errors import MarkerError
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coppice.cloud.model import DesiredImage

PREFIX = "coppice_"
SITE = "coppice_site"
LIST = "coppice_list"
IMAGE = "coppice_image"
VERSION = "coppice_version"
LIST_VERSION = "coppice_list_version"
DIGEST = "coppice_digest"
STATE = "coppice_state"
STATE_SINCE = "coppice_state_since"
PIN = "coppice_pin"
EXPIRES = "coppice_expires"
METADATA_DIGEST = "coppice_metadata_digest"
VO = "coppice_vo"
SET = "coppice_set"
SET_VERSION = "coppice_set_version"
REASON = "coppice_reason"
ADOPTED_FROM = "coppice_adopted_from"
BUILT_ON = "coppice_built_on"

MAX_TITLE_LENGTH = 200
MAX_VALUE_LENGTH = 1000
_quoted = json.encoder.encode_basestring_ascii
LINEAGE_DIGITS = 32
"""How many digits of a digest a marker keeps of what an image is built on: too many for two to be the same."""
MAX_LINEAGE = 7
"""Of how much a marker tells that an image is built on: more does not fit into the 255 characters of some clouds."""


def to_properties(marker: OwnershipMarker) -> dict[str, str]:
    """Return the properties that say what ``marker`` says; what is None has no property.

    Instants are written to the second; the state's is therefore never later than it was.
    """
    properties = {
        SITE: marker.site,
        LIST: marker.key.list_identifier,
        IMAGE: marker.key.image_identifier,
        VERSION: marker.version,
        LIST_VERSION: marker.list_version,
        DIGEST: str(marker.digest),
        STATE: str(marker.state),
        STATE_SINCE: to_rfc3339(marker.state_since),
        METADATA_DIGEST: marker.metadata_digest,
    }
    optional = {
        PIN: marker.pin,
        EXPIRES: None if marker.expires is None else to_rfc3339(marker.expires),
        VO: marker.vo,
        SET: marker.set_identifier,
        SET_VERSION: marker.set_version,
        REASON: None if marker.reason is None else clean(marker.reason, MAX_VALUE_LENGTH) or None,
        ADOPTED_FROM: marker.adopted_from,
        BUILT_ON: " ".join(marker.built_on) or None,
    }
    return properties | {key: value for key, value in optional.items() if value is not None}


def from_properties(properties: Mapping[str, str], site: str, *, name: str = "an image") -> OwnershipMarker | None:
    """Read the marker of ``site``; None: the image is not this site's.

    Args:
        properties: Everything that the cloud tells of the image; other keys are ignored.
        site: Identifier of the site that asks.
        name: What the cloud calls the image, for the error.

    Raises:
        MarkerError: The marker is this site's and is damaged.
    """
    if properties.get(SITE) != site:
        return None
    try:
        pin = properties.get(PIN)
        return OwnershipMarker(
            site=site,
            key=ImageKey(ListIdentifier(_filled(properties, LIST)), ImageIdentifier(_filled(properties, IMAGE))),
            version=Version(_filled(properties, VERSION)).text,
            list_version=Version(_filled(properties, LIST_VERSION)).text,
            digest=Checksum.parse(_filled(properties, DIGEST)),
            state=ImageState(_filled(properties, STATE)),
            state_since=_instant(_filled(properties, STATE_SINCE)),
            expires=_instant(properties[EXPIRES]) if EXPIRES in properties else None,
            metadata_digest=_filled(properties, METADATA_DIGEST),
            pin=Version(pin).text if pin is not None else None,
            vo=properties.get(VO),
            set_identifier=properties.get(SET),
            set_version=properties.get(SET_VERSION),
            reason=properties.get(REASON),
            adopted_from=properties.get(ADOPTED_FROM),
            built_on=tuple(properties.get(BUILT_ON, "").split()),
        )
    except ValueError as problem:
        raise MarkerError(
            f"the ownership marker of {name} is damaged: {problem}",
            details=", ".join(
                f"{key}={value!r}" for key, value in sorted(properties.items()) if key.startswith(PREFIX)
            )[:2000],
            resolution=f"Nothing was changed. Mend the property, or remove {SITE} from the image: it is then not "
            "Coppice's any more, and will be registered anew if it is listed.",
            context={"image": name},
        ) from problem


def _filled(properties: Mapping[str, str], key: str) -> str:
    value = properties.get(key)
    if not isinstance(value, str) or not value:
        message = f"{key} is missing"
        raise ValueError(message)
    return value


def _instant(text: str) -> datetime:
    return require_aware(datetime.fromisoformat(text))


def metadata_of(desired: DesiredImage) -> dict[str, str]:
    """Return what a cloud's users are told of an image, in a canonical form that is safe to show.

    Control and formatting characters are gone, white space is one blank, lengths are bounded. What a list does not
    say has no key. Sizes are decimal, in the unit that the key names.
    """
    listed = desired.listed
    system, needs = listed.operating_system, listed.requirements
    facts: dict[str, object | None] = {
        "title": listed.title,
        "description": listed.description,
        "version": listed.version,
        "os_kind": system.kind,
        "os_distribution": system.distribution,
        "os_version": system.version,
        "architecture": system.architecture,
        "hypervisor": listed.hypervisor,
        "comments": listed.comments,
        "groups": ", ".join(listed.groups),
        "minimum_cores": needs.minimum_cores,
        "minimum_ram_mib": needs.minimum_ram_mib,
        "minimum_disk_bytes": needs.minimum_disk_bytes,
        "recommended_cores": needs.recommended_cores,
        "recommended_ram_mib": needs.recommended_ram_mib,
        "mpuri": listed.mpuri,
        "base_mpuri": listed.base_mpuri,
    }
    cleaned = {}
    for key, value in facts.items():
        if value is not None and value != "":
            text = clean(str(value), MAX_TITLE_LENGTH if key == "title" else MAX_VALUE_LENGTH)
            if text:
                cleaned[key] = text
    return cleaned


def lineage_of(built_on: Iterable[Checksum]) -> tuple[str, ...]:
    """Return what a marker tells of what an image is built on, the nearest first."""
    return tuple([each.hexdigest[:LINEAGE_DIGITS] for each in built_on][:MAX_LINEAGE])


def presentation_of(desired: DesiredImage) -> Presentation:
    """Return how an image is to be shown: as the settings of the cloud say, else by its title."""
    if desired.presentation is not None:
        return desired.presentation
    facts = metadata_of(desired)
    return Presentation(name=facts.get("title", "image"), facts=facts)


def presentation_digest(presentation: Presentation) -> str:
    """Return the sha256 of all that is shown, in hexadecimal; the order of keys and members does not matter.

    Where an image lies is no part of it: a change of that moves nothing.
    """
    audience = presentation.audience
    shown = {
        "name": presentation.name,
        "visibility": "" if audience.visibility is None else str(audience.visibility),
        "members": json.dumps(sorted(audience.members)) if audience.members else "[]",
    }
    for key, value in presentation.facts.items():
        shown[f"fact {key}"] = value
    for key, value in presentation.properties.items():
        shown[f"property {key}"] = value
    return metadata_digest(shown)


def clean(text: str, limit: int) -> str:
    """Return ``text`` on one line without control and formatting characters, at most ``limit`` characters long."""
    if text.isascii() and text.isprintable():
        if len(text) <= limit and "  " not in text and text[:1] != " " and text[-1:] != " ":
            return text
        return " ".join(text[: limit * 8].split())[:limit].rstrip()
    # Only what can survive is looked at: a hostile value of many megabytes costs no more than a long one.
    kept = "".join(" " if _separates(char) else char for char in text[: limit * 8] if not _is_hidden(char))
    return " ".join(kept.split())[:limit].rstrip()


def _separates(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in {"Cc", "Zl", "Zp"}


def _is_hidden(char: str) -> bool:
    # Direction marks, zero-width characters, lone surrogates, private use, unassigned.
    return unicodedata.category(char) in {"Cf", "Cs", "Co", "Cn"}


def metadata_digest(metadata: Mapping[str, str]) -> str:
    """Return the sha256 of ``metadata`` in hexadecimal; the order of keys does not matter."""
    # What `json.dumps` would write with sorted keys and no blanks, in a third of the time: a plan asks for thousands.
    pairs = [f"{_quoted(key)}:{_quoted(value)}" for key, value in sorted(metadata.items())]
    return hashlib.sha256(f"{{{','.join(pairs)}}}".encode("ascii")).hexdigest()
