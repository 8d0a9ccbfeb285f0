# SPDX-License-Identifier: Apache-2.0
"""Where a build's bytes come from, as an in-toto statement (v1) with a provenance of SLSA (v1): JSON.

Only what is known is said: what no input was recorded for is not in it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice import __version__
from coppice.clock import to_rfc3339
from coppice.formats.fields import Fields
from coppice.formats.strict_json import read_json, refuse
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.factory.model import BuildInput, BuildResult

MEDIA_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:coppice:build:1"
BUILDER = "urn:coppice:builder"
MAX_STATEMENT_BYTES = 4 * 1024 * 1024
_WHAT = "provenance"
_MOST_SUBJECTS = 64
_USER = re.compile(r"(?<=://)[^/@]*@")
_DIGESTS = frozenset({"sha256", "sha384", "sha512"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a statement says, as far as it is looked at.

    Attributes:
        subjects: Names of the files that it speaks of, with their digests.
        definition: Name of the definition.
        definition_digest: Of what it said.
        definition_source: Where it came from; empty: a folder of the building machine.
        builder: Name and version.
        started: When the build started, as it was written.
        inputs: Names of what went in.
    """

    subjects: tuple[tuple[str, Checksum], ...]
    definition: str
    definition_digest: str
    definition_source: str
    builder: str
    started: str
    inputs: tuple[str, ...]

    def speaks_of(self, checksum: Checksum) -> bool:
        """Tell whether the file with that digest is one that it speaks of."""
        return any(own.matches(checksum) for _, own in self.subjects)


def write_statement(result: BuildResult, by_products: Iterable[tuple[str, Checksum]] = ()) -> bytes:
    """Return what is known of where the images of ``result`` come from; the same build always makes the same bytes.

    Args:
        result: The build.
        by_products: Names and digests of what else the build gave (bills of materials).
    """
    known = result.provenance
    definition = {"name": result.definition.name, "digest": {"sha256": known.definition_digest}}
    if known.definition_source:
        definition["source"] = known.definition_source
    if result.definition.variant:
        definition["variant"] = result.definition.variant
    inputs = {each.digest for each in known.inputs}
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "definition": definition,
                "snapshot": result.definition.snapshot or None,
                "formats": [str(each) for each in result.definition.formats],
            },
            "internalParameters": {"key": result.key},
            "resolvedDependencies": [
                *(_dependency(each) for each in known.inputs),
                *(
                    {"name": f"ancestor {each.definition}", "digest": _digest(each.image_digest)}
                    for each in known.lineage
                    if each.image_digest not in inputs
                ),
            ],
        },
        "runDetails": {
            "builder": {
                "id": BUILDER,
                "version": {"coppice": __version__, **dict([known.builder.split(" ", 1)]), **dict(known.tools)},
            },
            "metadata": {
                "invocationId": result.key,
                "startedOn": to_rfc3339(known.started_at),
                "finishedOn": to_rfc3339(known.started_at + timedelta(seconds=known.seconds)),
            },
            "byproducts": [{"name": name, "digest": _digest(str(checksum))} for name, checksum in by_products],
        },
    }
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": built.path.name, "digest": _digest(str(built.image.checksum))} for built in result.images],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    return (json.dumps(statement, indent=1, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")


def read_statement(payload: bytes) -> Statement:
    """Return what a statement says.

    Raises:
        DocumentError: It is no statement on where a build comes from.
    """
    fields = Fields(
        read_json(payload, what=_WHAT, max_bytes=MAX_STATEMENT_BYTES, max_text_bytes=MAX_STATEMENT_BYTES), "$", _WHAT
    )
    if fields.word("_type") != STATEMENT_TYPE:
        fields.refuse("_type", f"it is not {STATEMENT_TYPE}")
    if fields.word("predicateType") != PREDICATE_TYPE:
        fields.refuse("predicateType", f"it is not {PREDICATE_TYPE}")
    listed = fields.array("subject")
    if not 1 <= len(listed) <= _MOST_SUBJECTS:
        fields.refuse("subject", f"it has not 1 to {_MOST_SUBJECTS} entries")
    subjects = tuple(_subject(fields.element("subject", *each)) for each in enumerate(listed))
    predicate = fields.group("predicate")
    build, run = predicate.group("buildDefinition"), predicate.group("runDetails")
    definition = build.group("externalParameters").group("definition")
    dependencies = [] if build.lacks("resolvedDependencies") else build.array("resolvedDependencies")
    return Statement(
        subjects=subjects,
        definition=definition.word("name"),
        definition_digest=definition.group("digest").word("sha256"),
        definition_source=definition.optional_text("source") or "",
        builder=run.group("builder").word("id"),
        started=run.group("metadata").word("startedOn"),
        inputs=tuple(str(each.get("name", "")) for each in dependencies if isinstance(each, dict)),
    )


def _subject(fields: Fields) -> tuple[str, Checksum]:
    name, digests = fields.word("name"), fields.group("digest").rest()
    for algorithm in sorted(_DIGESTS & digests.keys(), reverse=True):
        try:
            return name, Checksum(algorithm, str(digests[algorithm]))
        except ValueError as problem:
            refuse(f"{fields.path}.digest", str(problem), what=_WHAT)
    return refuse(f"{fields.path}.digest", "it has no sha256, sha384 or sha512", what=_WHAT)


def _dependency(known: BuildInput) -> dict[str, object]:
    said: dict[str, object] = {"name": known.name}
    if known.uri:
        # Who may fetch it is nobody's affair.
        said["uri"] = _USER.sub("", known.uri)
    return said | {"digest": _digest(known.digest)}


def _digest(text: str) -> dict[str, str]:
    algorithm, _, hexdigest = text.partition(":")
    return {algorithm: hexdigest}
