# SPDX-License-Identifier: Apache-2.0
"""``sources.toml``: which repositories definitions come from, and the commit that each is pinned to.

It is a file and no table of the database: whoever builds needs it and nothing else, people can read and review it, and
carried to another machine it gives the same definitions there.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - pydantic looks at it
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from coppice import atomic
from coppice.clock import to_rfc3339
from coppice.definition.git_address import GitAddress
from coppice.definition.git_signature import KeyKind, PinnedKey
from coppice.errors import CoppiceError, DefinitionSourceError
from coppice.model.identifiers import is_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_NAME: Final = "sources.toml"
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_HEAD = """\
# Where definitions come from, and the commits that they are pinned to.
# Written by `coppice definition add`, `update` and `remove`.
version = 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedSource:
    """A repository of definitions, and what of it is used.

    Attributes:
        name: What commands call it.
        address: Where it is.
        commit: The one that is used, whatever its ref says today.
        committed_at: When it was made, as it says.
        digest: sha256 of all files that were taken from it: holds where a commit's own digest would not.
        definitions: Names of the definitions in it.
        key: Whose signatures alone are accepted; None: nobody's are asked for.
        signed_by: Who signed what is pinned; empty: nobody was asked.
        pinned_at: When it was pinned to this commit.
    """

    name: str
    address: GitAddress
    commit: str
    committed_at: datetime
    digest: str
    definitions: tuple[str, ...]
    key: PinnedKey | None
    signed_by: str
    pinned_at: datetime

    @property
    def folder(self) -> str:
        """The name of the folder that holds the files of this pin."""
        return f"{self.commit[:16]}-{self.digest[:16]}"


class _Entry(BaseModel):
    model_config = ConfigDict(
        extra="forbid", alias_generator=lambda name: name.replace("_", "-"), hide_input_in_errors=True
    )

    address: str
    commit: Annotated[str, StringConstraints(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")]
    committed_at: datetime
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    definitions: list[str] = Field(min_length=1, max_length=1000)
    key_kind: KeyKind | None = None
    key: str | None = None
    signed_by: str = ""
    pinned_at: datetime

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.key is None) != (self.key_kind is None):
            message = "key and key-kind come together"
            raise ValueError(message)
        if not all(is_name(name) for name in self.definitions):
            message = "definitions has what cannot be the name of one"
            raise ValueError(message)
        if self.pinned_at.tzinfo is None or self.committed_at.tzinfo is None:
            message = "committed-at and pinned-at need a time zone"
            raise ValueError(message)
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: Literal[1]
    source: dict[str, _Entry] = Field(default={})


def read_sources(directory: Path) -> dict[str, PinnedSource]:
    """Return the pinned sources, by name; none where there is no file.

    Raises:
        DefinitionSourceError: The file cannot be used.
        StorageError: It cannot be read.
    """
    path = directory / FILE_NAME
    with atomic.storage_errors("reading", path):
        try:
            with path.open("rb") as stream:
                content = stream.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return {}
    if len(content) > MAX_FILE_BYTES:
        raise _unusable(path, f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        parsed = _File.model_validate(tomllib.loads(content.decode("utf-8")))
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        raise _unusable(path, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from problem
    except (ValueError, RecursionError) as problem:
        raise _unusable(path, f"is not TOML: {problem}") from problem
    return {name: _source(path, name, entry) for name, entry in parsed.source.items()}


def write_sources(directory: Path, sources: Mapping[str, PinnedSource]) -> None:
    """Write the pinned sources, in one step.

    Raises:
        StorageError: It cannot be written.
    """
    parts = [_HEAD, *(_told(source) for _, source in sorted(sources.items()))]
    atomic.write_text(directory / FILE_NAME, "\n".join(parts))


def _source(path: Path, name: str, entry: _Entry) -> PinnedSource:
    if not is_name(name):
        raise _unusable(path, f"{name[:80]!r} cannot be the name of a source")
    try:
        address = GitAddress.parse(entry.address)
        key = None if entry.key is None or entry.key_kind is None else PinnedKey(kind=entry.key_kind, text=entry.key)
    except CoppiceError as problem:
        raise _unusable(path, f"source.{name}: {problem.message}") from problem
    return PinnedSource(
        name=name,
        address=address,
        commit=entry.commit,
        committed_at=entry.committed_at,
        digest=entry.digest,
        definitions=tuple(entry.definitions),
        key=key,
        signed_by=entry.signed_by,
        pinned_at=entry.pinned_at,
    )


def _told(source: PinnedSource) -> str:
    said: dict[str, object] = {
        "address": str(source.address),
        "commit": source.commit,
        "digest": source.digest,
        "definitions": list(source.definitions),
    }
    if source.key is not None:
        said |= {"key-kind": str(source.key.kind), "key": source.key.text}
    if source.signed_by:
        said["signed-by"] = source.signed_by
    lines = [f"{key} = {_written(value)}" for key, value in said.items()]
    lines += [f"committed-at = {to_rfc3339(source.committed_at)}", f"pinned-at = {to_rfc3339(source.pinned_at)}"]
    return "\n".join([f"[source.{_written(source.name)}]", *lines, ""])


def _written(value: object) -> str:
    # What JSON writes of texts and lists of texts is TOML as well, but for this one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _unusable(path: Path, why: str) -> DefinitionSourceError:
    return DefinitionSourceError(
        f"{path} cannot be used: {why}",
        resolution="Bring it back as it was, or remove it and add the sources again.",
        context={"path": str(path)},
    )
