# SPDX-License-Identifier: Apache-2.0
"""What today's readers of image lists ask of a list, written down apart from Coppice's own reader.

Nothing of the product is used here: this is the second opinion on what it publishes. Each function returns what its
reader would stumble over, one sentence each; nothing means that it accepts the list.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

LIST_KEYS = (
    *("dc:date:created", "dc:date:expires", "dc:identifier", "dc:description", "dc:title", "dc:source"),
    *("hv:version", "hv:uri", "hv:endorser", "hv:images"),
)
ENDORSER_KEYS = ("hv:ca", "hv:dn", "hv:email", "dc:creator")
IMAGE_KEYS = (
    *("dc:title", "dc:description", "hv:size", "sl:checksum:sha512", "sl:arch", "hv:uri", "dc:identifier"),
    *("sl:os", "sl:osversion", "sl:comments", "hv:hypervisor", "hv:version"),
)
ATROPE_IMAGE_KEYS = (
    *("ad:group", "ad:mpuri", "ad:user:fullname", "ad:user:guid", "ad:user:uri", "dc:description", "dc:identifier"),
    *("dc:title", "hv:hypervisor", "hv:format", "hv:size", "hv:uri", "hv:version", "sl:arch", "sl:comments"),
    *("sl:os", "sl:osname", "sl:osversion", "sl:checksum:sha512"),
)
CLOUDKEEPER_IMAGE_KEYS = ("dc:identifier", "ad:mpuri", "dc:date:expires", "hv:uri", "sl:checksum:sha512")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownList:
    """What a vmcatcher database holds of a subscription.

    Attributes:
        identifier: ``dc:identifier`` that was subscribed to.
        uri: Where it was subscribed to.
        endorser: The linked endorser: subject and issuer, in OpenSSL's one-line form.
        version: Of the last list that was stored; None before the first.
    """

    identifier: str
    uri: str
    endorser: tuple[str, str]
    version: str | None = None


def vmcatcher_complaints(payload: bytes, *, subject: str, issuer: str, known: KnownList, now: datetime) -> list[str]:
    """Apply vmcatcher's rules to a payload whose signature held.

    Args:
        payload: The signed bytes.
        subject: Of the signer's certificate, in OpenSSL's one-line form.
        issuer: Of the signer's certificate, likewise.
        known: What the database holds.
        now: The time.
    """
    try:
        document = json.loads(payload)
    except ValueError as problem:
        return [f"not JSON: {problem}"]
    content = document.get("hv:imagelist")
    if not isinstance(content, dict):
        return ["there is no hv:imagelist"]
    complaints = _missing(content, LIST_KEYS, "the list")
    if complaints:
        return complaints
    complaints += _dates(content, now)
    endorser = content["hv:endorser"]
    if not isinstance(endorser, dict) or not isinstance(endorser.get("hv:x509"), dict):
        return [*complaints, "hv:endorser is not one object with one hv:x509"]
    named = endorser["hv:x509"]
    complaints += _missing(named, ENDORSER_KEYS, "the endorser")
    if (named.get("hv:dn"), named.get("hv:ca")) != (subject, issuer):
        complaints.append(f"the endorser {named.get('hv:dn')!r} below {named.get('hv:ca')!r} is not the signer")
    if (subject, issuer) != known.endorser:
        complaints.append(f"{subject!r} is not linked to the subscription")
    if content["hv:uri"] != known.uri:
        complaints.append(f"hv:uri is {content['hv:uri']!r}, subscribed was {known.uri!r}")
    if content["dc:identifier"] != known.identifier or not _UUID.fullmatch(str(content["dc:identifier"])):
        complaints.append(f"dc:identifier is {content['dc:identifier']!r}")
    if known.version is not None and compare_versions(known.version, content["hv:version"]) >= 0:
        complaints.append(f"version {content['hv:version']!r} does not come after {known.version!r}")
    return complaints + _images(content["hv:images"])


def cloudkeeper_complaints(payload: bytes) -> list[str]:
    """Return which keys cloudkeeper misses; one of them, and it refuses the list."""
    content = json.loads(payload)["hv:imagelist"]
    complaints = _missing(content, ("dc:identifier", "dc:date:expires", "ad:vo"), "the list")
    for number, entry in enumerate(content["hv:images"]):
        complaints += _missing(entry["hv:image"], CLOUDKEEPER_IMAGE_KEYS, f"image {number}")
    return complaints


def atrope_complaints(payload: bytes) -> list[str]:
    """Return which keys atrope misses; one of them, and it refuses the list."""
    content = json.loads(payload)["hv:imagelist"]
    complaints = _missing(content, LIST_KEYS, "the list")
    for number, entry in enumerate(content["hv:images"]):
        complaints += _missing(entry["hv:image"], ATROPE_IMAGE_KEYS, f"image {number}")
    return complaints


def compare_versions(old: str, new: str) -> int:
    """Compare as vmcatcher does: below zero where ``new`` is the later one.

    Versions are cut at ``-``, ``,``, ``.`` and ``/``; parts that are numbers compare as numbers, a number comes after a
    word, words compare by their runs of digits and letters, and the longer of two equal beginnings is the later one.
    """
    return _compare(_parts(old, r"[-,./]"), _parts(new, r"[-,./]"), words=True)


def _compare(old: list[str], new: list[str], *, words: bool) -> int:
    for before, after in zip(old, new, strict=False):
        if before == after:
            continue
        if before.isdigit() and after.isdigit():
            return (int(before) > int(after)) - (int(before) < int(after))
        if before.isdigit() or after.isdigit():
            return 1 if before.isdigit() else -1
        order = (
            _compare(_parts(before, r"[0-9]+"), _parts(after, r"[0-9]+"), words=False)
            if words
            else (before > after) - (before < after)
        )
        if order:
            return order
    return (len(old) > len(new)) - (len(old) < len(new))


def _parts(text: str, separator: str) -> list[str]:
    return [part for part in re.split(f"({separator})", text) if part]


def _missing(found: dict[str, Any], keys: tuple[str, ...], where: str) -> list[str]:
    return [f"{where} lacks {key}" for key in keys if key not in found]


def _dates(content: dict[str, Any], now: datetime) -> list[str]:
    try:
        created, expires = (
            datetime.strptime(content[key], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            for key in ("dc:date:created", "dc:date:expires")
        )
    except (TypeError, ValueError) as problem:
        return [f"a date cannot be read: {problem}"]
    complaints = ["the list was created in the future"] if now < created else []
    return [*complaints, "the list has expired"] if now > expires else complaints


def _images(images: Any) -> list[str]:
    if not isinstance(images, list):
        return ["hv:images is no array"]
    complaints: list[str] = []
    identifiers: set[str] = set()
    for number, entry in enumerate(images):
        image = entry.get("hv:image") if isinstance(entry, dict) else None
        if not isinstance(image, dict):
            complaints.append(f"image {number} has no hv:image")
            continue
        complaints += _missing(image, IMAGE_KEYS, f"image {number}")
        identifier = str(image.get("dc:identifier"))
        if identifier in identifiers or not _UUID.fullmatch(identifier):
            complaints.append(f"image {number} has the identifier {identifier!r}")
        identifiers.add(identifier)
        if not re.fullmatch(r"[0-9]+", str(image.get("hv:size"))):
            complaints.append(f"the size of image {number} is no number")
        if not re.fullmatch(r"[0-9a-f]{128}", str(image.get("sl:checksum:sha512"))):
            complaints.append(f"the checksum of image {number} is not SHA-512")
        if any(not isinstance(image.get(key), str) for key in IMAGE_KEYS if key != "hv:size"):
            complaints.append(f"image {number} has something else than a text where one is read")
    return complaints
