# SPDX-License-Identifier: Apache-2.0
"""What was found at a registry: which tag names which manifest, and what is attached to it.

It is one document of the gathered message. All others are found by their digest, which the table names; so the table's
bytes stand for all of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.formats.fields import Fields
from coppice.formats.oci import is_digest, is_repository, is_tag
from coppice.formats.strict_json import read_json

if TYPE_CHECKING:
    from coppice.formats.limits import ListLimits

NAME = "tags"
_WHAT = "table of tags"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """Something that refers to a manifest.

    Attributes:
        digest: Of its manifest.
        artifact_type: What it is; empty: not said.
    """

    digest: str
    artifact_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TagRow:
    """What was found of one tag.

    Attributes:
        repository: In which repository.
        tag: Its name.
        digest: Of the manifest or index that it names; None: it could not be had.
        problem: Why it, or what it needs, could not be had; None: all was.
        stays: Which build it is, by a tag that stays and names the same; None: no such tag was found.
        signatures: Of payloads in the manifest of signatures, each with its digest and signature, in its order.
        bundles: Digests of Sigstore bundles.
        attached: What else refers to it.
    """

    repository: str
    tag: str
    digest: str | None = None
    problem: str | None = None
    stays: str | None = None
    signatures: tuple[tuple[str, str], ...] = ()
    bundles: tuple[str, ...] = ()
    attached: tuple[Attached, ...] = ()


def write_table(rows: tuple[TagRow, ...]) -> bytes:
    """Return the table, in its one spelling."""
    said = [
        {
            "repository": row.repository,
            "tag": row.tag,
            "digest": row.digest,
            "problem": row.problem,
            "stays": row.stays,
            "signatures": [{"payload": payload, "signature": signature} for payload, signature in row.signatures],
            "bundles": list(row.bundles),
            "attached": [{"digest": each.digest, "artifact_type": each.artifact_type} for each in row.attached],
        }
        for row in sorted(rows, key=lambda row: (row.repository, row.tag))
    ]
    return json.dumps({"tags": said}, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def read_table(payload: bytes, limits: ListLimits) -> tuple[TagRow, ...]:
    """Return what `write_table` wrote.

    Raises:
        DocumentError: It is no such table, or names a tag twice.
    """
    said = read_json(payload, what=_WHAT, max_bytes=limits.size_bytes, max_values=limits.values)
    fields = Fields(said, "$", _WHAT)
    rows = tuple(_row(fields.element("tags", number, each)) for number, each in enumerate(fields.array("tags")))
    if len({(row.repository, row.tag) for row in rows}) != len(rows):
        fields.refuse("tags", "a tag stands there twice")
    return rows


def _row(fields: Fields) -> TagRow:
    repository, tag = fields.text("repository"), fields.text("tag")
    if not is_repository(repository) or not is_tag(tag):
        fields.refuse("tag", "it is no tag of a repository")
    digest, problem = fields.optional_text("digest"), fields.optional_text("problem")
    if (digest is None and problem is None) or (digest is not None and not is_digest(digest)):
        fields.refuse("digest", "it is no digest")
    signatures: list[tuple[str, str]] = []
    for number, each in enumerate(fields.array("signatures")):
        element = fields.element("signatures", number, each)
        signatures.append((_digest(element, "payload"), element.text("signature")))
    attached: list[Attached] = []
    for number, each in enumerate(fields.array("attached")):
        element = fields.element("attached", number, each)
        attached.append(
            Attached(digest=_digest(element, "digest"), artifact_type=element.text_or_empty("artifact_type"))
        )
    bundles = fields.array("bundles")
    if not all(isinstance(each, str) and is_digest(each) for each in bundles):
        fields.refuse("bundles", "one of them is no digest")
    return TagRow(
        repository=repository,
        tag=tag,
        digest=digest,
        problem=problem,
        stays=fields.optional_text("stays"),
        signatures=tuple(signatures),
        bundles=tuple(str(each) for each in bundles),
        attached=tuple(attached),
    )


def _digest(fields: Fields, key: str) -> str:
    text = fields.text(key)
    if not is_digest(text):
        fields.refuse(key, "it is no digest")
    return text
