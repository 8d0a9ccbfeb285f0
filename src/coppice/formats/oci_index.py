# SPDX-License-Identifier: Apache-2.0
"""OCI indexes, and what a registry lists: manifests for several machines, referrers, tags and repositories.

Sources: OCI Image Format Specification 1.1 (``image-index.md``); OCI Distribution Specification 1.1 ("Listing tags",
"Listing referrers", "Referrers tag schema"); Harbor's API 2.0 (``/projects/{name}/repositories``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.formats.oci import (
    MANIFEST_DEPTH,
    MANIFEST_LIMIT_BYTES,
    OciDescriptor,
    is_repository,
    is_tag,
    read_annotations,
    read_descriptor,
    read_media_type,
)
from coppice.formats.strict_json import read_json, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
_WHAT = "OCI index"
_MANIFESTS = 1000
_ENTRIES_OF_A_PAGE = 10_000
_HARBOR_WRAP = b'{"repositories":'
_PLATFORM_TEXT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """A manifest that an index names.

    Attributes:
        descriptor: Of the manifest.
        architecture: For which machines, in the words of the Go language (``amd64``, ``arm64``); None: not said.
        system: For which operating system's kernel; None: not said.
        artifact_type: What it is, if it is no container.
    """

    descriptor: OciDescriptor
    architecture: str | None = None
    system: str | None = None
    artifact_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OciIndex:
    """An index: manifests of the same thing for several machines, or those that refer to one manifest.

    Attributes:
        entries: What it names, in its order.
        annotations: What else is said of it.
    """

    entries: tuple[IndexEntry, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)


def referrers_tag(digest: str) -> str:
    """Return the tag under which those that refer to a manifest are listed where the registry does not list them."""
    return digest.replace(":", "-", 1)


def is_index(payload: bytes) -> bool:
    """Tell whether ``payload`` says that it is an index.

    Raises:
        DocumentError: It is no JSON object.
    """
    said = read_json(payload, what=_WHAT, max_bytes=MANIFEST_LIMIT_BYTES, max_depth=MANIFEST_DEPTH)
    # A document that could be read as either is neither (CVE-2021-41190).
    if "manifests" in said and "layers" in said:
        refuse("$.manifests", "it stands beside layers: is it an index or a manifest?", what=_WHAT)
    return said.get("mediaType") == INDEX_MEDIA_TYPE or ("mediaType" not in said and "manifests" in said)


def read_index(payload: bytes) -> OciIndex:
    """Return the index that ``payload`` is.

    Raises:
        DocumentError: It is none, or it names what cannot be verified.
    """
    said = read_json(payload, what=_WHAT, max_bytes=MANIFEST_LIMIT_BYTES, max_depth=MANIFEST_DEPTH)
    version = said.get("schemaVersion")
    if version != 2 or isinstance(version, bool):  # noqa: PLR2004 - the only version of this format
        refuse("$.schemaVersion", "it is not 2", what=_WHAT)
    if said.get("mediaType", INDEX_MEDIA_TYPE) != INDEX_MEDIA_TYPE:
        refuse("$.mediaType", f"{str(said.get('mediaType'))[:80]!a} is not {INDEX_MEDIA_TYPE}", what=_WHAT)
    if "layers" in said:
        refuse("$.layers", "an index has none", what=_WHAT)
    manifests = said.get("manifests")
    if not isinstance(manifests, list) or len(manifests) > _MANIFESTS:
        refuse("$.manifests", f"it is no array of up to {_MANIFESTS} manifests", what=_WHAT)
    return OciIndex(
        entries=tuple(_entry(each, f"$.manifests[{position}]") for position, each in enumerate(manifests)),
        annotations=read_annotations(said.get("annotations"), "$.annotations"),
    )


def write_index(index: OciIndex) -> bytes:
    """Return ``index`` as JSON; the same index gives the same bytes."""
    said: dict[str, object] = {"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE}
    said["manifests"] = [_said(entry) for entry in index.entries]
    if index.annotations:
        said["annotations"] = dict(sorted(index.annotations.items()))
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def read_tags(payload: bytes, *, max_bytes: int) -> tuple[str, ...]:
    """Return one page of a repository's tags; a registry writes ``null`` where there are none.

    Raises:
        DocumentError: It is no list of tags.
    """
    said = read_json(payload, what="list of tags", max_bytes=max_bytes, max_depth=4)
    if "tags" not in said:
        refuse("$.tags", "it is missing", what="list of tags")
    tags = said["tags"]
    if tags is None:
        return ()
    if not isinstance(tags, list) or len(tags) > _ENTRIES_OF_A_PAGE:
        refuse("$.tags", f"it is no array of up to {_ENTRIES_OF_A_PAGE} tags", what="list of tags")
    for position, tag in enumerate(tags):
        if not isinstance(tag, str) or not is_tag(tag):
            refuse(f"$.tags[{position}]", "it is no tag", what="list of tags")
    return tuple(tags)


def read_catalog(payload: bytes, *, max_bytes: int) -> tuple[str, ...]:
    """Return one page of a registry's repositories (``/v2/_catalog``).

    Raises:
        DocumentError: It is no list of repositories.
    """
    said = read_json(payload, what="list of repositories", max_bytes=max_bytes, max_depth=4)
    return _repositories(said.get("repositories"))


def read_harbor_repositories(payload: bytes, *, max_bytes: int) -> tuple[str, ...]:
    """Return one page of a Harbor project's repositories, with the project's name before theirs.

    Raises:
        DocumentError: It is no list of repositories.
    """
    # Harbor answers with an array; what is read strictly is an object.
    wrapped = _HARBOR_WRAP + payload + b"}"
    said = read_json(wrapped, what="list of repositories", max_bytes=max_bytes + len(_HARBOR_WRAP) + 1)
    if set(said) != {"repositories"}:
        refuse("$", "it is no array", what="list of repositories")
    listed = said["repositories"]
    if isinstance(listed, list):
        listed = [each.get("name") if isinstance(each, dict) else None for each in listed]
    return _repositories(listed)


def _repositories(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _ENTRIES_OF_A_PAGE:
        refuse("$.repositories", f"it is no array of up to {_ENTRIES_OF_A_PAGE}", what="list of repositories")
    found: list[str] = []
    for position, name in enumerate(value):
        if not isinstance(name, str) or not is_repository(name):
            refuse(f"$.repositories[{position}]", "it names no repository", what="list of repositories")
        found.append(name)
    return tuple(found)


def _entry(value: object, path: str) -> IndexEntry:
    if not isinstance(value, dict):
        refuse(path, "it is no object", what=_WHAT)
    descriptor = read_descriptor(value, path)
    artifact_type = value.get("artifactType")
    platform = value.get("platform")
    if platform is not None and not isinstance(platform, dict):
        refuse(f"{path}.platform", "it is no object", what=_WHAT)
    return IndexEntry(
        descriptor=descriptor,
        architecture=_word(platform, "architecture", path),
        system=_word(platform, "os", path),
        artifact_type=None if artifact_type in {None, ""} else read_media_type(artifact_type, f"{path}.artifactType"),
    )


def _word(platform: dict[str, object] | None, key: str, path: str) -> str | None:
    text = None if platform is None else platform.get(key)
    if text is None:
        return None
    if not isinstance(text, str) or not 0 < len(text) <= _PLATFORM_TEXT or not text.isprintable():
        refuse(f"{path}.platform.{key}", "it is no short text", what=_WHAT)
    return text


def _said(entry: IndexEntry) -> dict[str, object]:
    descriptor = entry.descriptor
    said: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size_bytes,
    }
    if entry.artifact_type is not None:
        said["artifactType"] = entry.artifact_type
    platform = {"architecture": entry.architecture, "os": entry.system}
    if any(platform.values()):
        said["platform"] = {key: text for key, text in platform.items() if text is not None}
    if descriptor.annotations:
        said["annotations"] = dict(sorted(descriptor.annotations.items()))
    return said
