# SPDX-License-Identifier: Apache-2.0
"""``build.json``: a `BuildResult` on disk, written beside its images and read back as the same thing."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice.atomic import storage_errors
from coppice.errors import NotFoundError, StorageError
from coppice.factory.model import Ancestor, BuildInput, BuildResult, BuiltImage, Package, Provenance
from coppice.factory.verdicts import verdict_document, verdict_from
from coppice.formats.definition import definition_document, definition_from
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FILE_NAME = "build.json"
_SCHEMA = 1


def write_record(path: Path, result: BuildResult) -> None:
    """Write ``result`` to ``path``; images are named relative to its directory."""
    document = {
        "schema": _SCHEMA,
        "key": result.key,
        "definition": definition_document(result.definition),
        "images": [_image_document(built) for built in result.images],
        "packages": [list(astuple(package)) for package in result.packages],
        "provenance": asdict(result.provenance) | {"started_at": result.provenance.started_at.isoformat()},
        "verdicts": [verdict_document(verdict) for verdict in result.verdicts],
        "tree": None if result.tree is None else result.tree.name,
    }
    with storage_errors("writing", path):
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_record(directory: Path) -> BuildResult:
    """Return the build in ``directory``, as reused.

    Raises:
        NotFoundError: There is none.
        StorageError: Its record cannot be read, or is none.
    """
    path = directory / FILE_NAME
    try:
        with storage_errors("reading", path):
            text = path.read_text(encoding="utf-8")
    except StorageError as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            raise NotFoundError(f"there is no build at {directory}", context={"path": str(directory)}) from problem
        raise
    try:
        return _result(json.loads(text), directory)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise StorageError(
            f"{path} is not the record of a build",
            details=f"{type(problem).__name__}: {problem}",
            resolution="Remove its directory, then build again.",
            context={"path": str(path)},
        ) from problem


def _image_document(built: BuiltImage) -> dict[str, object]:
    return {
        "file": built.path.name,
        "format": built.image.format.value,
        "size_bytes": built.image.size_bytes,
        "virtual_size_bytes": built.image.virtual_size_bytes,
        "checksum": str(built.image.checksum),
    }


def _result(document: Mapping[str, Any], directory: Path) -> BuildResult:
    if document["schema"] != _SCHEMA:
        message = f"schema {document['schema']!r} is not {_SCHEMA}"
        raise ValueError(message)
    provenance = document["provenance"]
    return BuildResult(
        definition=definition_from(document["definition"]),
        key=str(document["key"]),
        directory=directory,
        images=tuple(_image(image, directory) for image in document["images"]),
        packages=tuple(_package(values) for values in document["packages"]),
        provenance=Provenance(
            definition_digest=provenance["definition_digest"],
            builder=provenance["builder"],
            tools=tuple((tool, version) for tool, version in provenance["tools"]),
            started_at=datetime.fromisoformat(provenance["started_at"]),
            seconds=float(provenance["seconds"]),
            definition_source=str(provenance.get("definition_source", "")),
            inputs=tuple(BuildInput(**each) for each in provenance.get("inputs", ())),
            lineage=tuple(Ancestor(**each) for each in provenance.get("lineage", ())),
        ),
        verdicts=tuple(verdict_from(verdict) for verdict in document["verdicts"]),
        reused=True,
        tree=None if document.get("tree") is None else _beside(directory, document["tree"]),
    )


def _package(values: Sequence[str]) -> Package:
    # Older records have the first three alone.
    names = [each.name for each in fields(Package)]
    return Package(**dict(zip(names, map(str, values), strict=False)))


def _beside(directory: Path, name: object) -> Path:
    if not isinstance(name, str) or name in {"", ".", ".."} or Path(name).name != name:
        message = f"a file outside of its build: {name!r}"
        raise ValueError(message)
    return directory / name


def _image(document: Mapping[str, Any], directory: Path) -> BuiltImage:
    path = _beside(directory, document["file"])
    image = Image(
        format=DiskFormat(document["format"]),
        size_bytes=int(document["size_bytes"]),
        virtual_size_bytes=int(document["virtual_size_bytes"]),
        checksum=Checksum.parse(document["checksum"]),
    )
    return BuiltImage(path=path, image=image)
