# SPDX-License-Identifier: Apache-2.0
"""Everything that is wrong with an image list, where `coppice.formats.hepix.read_list` says the first thing only.

The form is held against the JSON Schema that is shipped beside this module; then follows what a schema cannot say; and
last the reader itself is asked, so that no list is found in order here that it refuses.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from coppice.errors import DocumentError
from coppice.formats.fields import MAX_WORD_BYTES, kind_of, read_instant
from coppice.formats.hepix_read import MAX_ENDORSERS, WHAT, read_document
from coppice.formats.limits import DEFAULT_LIMITS, ListLimits
from coppice.formats.strict_json import read_json
from coppice.imagelist.model import Profile
from coppice.model.endorser import DistinguishedName
from coppice.model.identifiers import is_uuid
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema.exceptions import ValidationError

    from coppice.imagelist.model import ImageList

MAX_PROBLEMS = 10_000
"""Most problems that are told of one list."""
_SCHEMA = "hepix.schema.json"
_IMAGE = re.compile(r"hv:images\[([0-9]+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is wrong with a document.

    Attributes:
        path: Where, as a JSON path: ``$.hv:imagelist.hv:images[3].hv:image.hv:size``.
        message: What.
    """

    path: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found.

    Attributes:
        problems: One for each place that has any: of the list first, then of its images in their order. Empty: the
            reader takes the list, and every entry.
        truncated: Whether there are more than `MAX_PROBLEMS`.
        content: What the list says; None where the reader refuses it.
    """

    problems: tuple[Problem, ...]
    truncated: bool
    content: ImageList | None


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of an image list; ``#/$defs`` has one for each profile."""
    text = resources.files("coppice.formats").joinpath(_SCHEMA).read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def find_problems(
    payload: bytes, *, profile: Profile = Profile.STRICT, limits: ListLimits = DEFAULT_LIMITS
) -> Findings:
    """Return everything that is wrong with the list that ``payload`` says; nothing of it is raised.

    Args:
        payload: UTF-8 JSON.
        profile: How much of the format it must keep to.
        limits: How much it may be.
    """
    try:
        document = read_json(
            payload,
            what=WHAT,
            max_bytes=limits.size_bytes,
            max_depth=limits.depth,
            max_text_bytes=limits.text_bytes,
            max_values=limits.values,
        )
    except DocumentError as refused:
        return Findings(problems=(_told(refused),), truncated=False, content=None)
    content, refusals = read_document(document, profile=profile, limits=limits)
    found: dict[str, Problem] = {}
    for problem in _all_problems(document, profile, limits):
        found.setdefault(problem.path, problem)
        if len(found) > MAX_PROBLEMS:
            break
    known = {prefix for path in found for prefix in _prefixes(path)}
    for refusal in map(_told, refusals):
        # The reader may name the object where here the key is named.
        if refusal.path not in known:
            found.setdefault(refusal.path, refusal)
    told = sorted(found.values(), key=_image_number)
    return Findings(problems=tuple(told[:MAX_PROBLEMS]), truncated=len(told) > MAX_PROBLEMS, content=content)


def _prefixes(path: str) -> Iterator[str]:
    yield path
    for separator in re.finditer(r"[.\[]", path):
        yield path[: separator.start()]


def _image_number(problem: Problem) -> int:
    match = _IMAGE.search(problem.path)
    return int(match.group(1)) if match else -1


def _told(problem: DocumentError) -> Problem:
    path = str(problem.context.get("path", "$"))
    return Problem(path=path, message=problem.message.partition(f" at {path}: ")[2] or problem.message)


def _all_problems(document: dict[str, object], profile: Profile, limits: ListLimits) -> Iterator[Problem]:
    older = "hv:images" in document
    fields = document if older else document.get("hv:imagelist")
    path = "$" if older else "$.hv:imagelist"
    images = fields.get("hv:images") if isinstance(fields, dict) else None
    if isinstance(images, list) and len(images) > limits.images:
        yield Problem(path=f"{path}.hv:images", message=f"more than {limits.images} images")
        return
    endorsers = fields.get("hv:endorser") if isinstance(fields, dict) else None
    if isinstance(endorsers, list) and len(endorsers) > MAX_ENDORSERS:
        yield Problem(path=f"{path}.hv:endorser", message=f"more than {MAX_ENDORSERS} endorsers")
        return
    for error in _validator(profile).iter_errors(document):
        yield from _of_schema(error)
    if isinstance(fields, dict):
        yield from _of_list(fields, path, limits)


@functools.cache
def _validator(profile: Profile) -> Any:
    from jsonschema import Draft202012Validator

    definitions = schema()["$defs"]
    return Draft202012Validator(_resolved(definitions[str(profile)], definitions))


def _resolved(part: Any, definitions: dict[str, Any]) -> Any:
    # References take most of the time where there are many images; here none leads in a circle.
    if isinstance(part, list):
        return [_resolved(each, definitions) for each in part]
    if not isinstance(part, dict):
        return part
    resolved = {key: _resolved(value, definitions) for key, value in part.items() if key != "$ref"}
    if "$ref" in part:
        target = definitions[part["$ref"].removeprefix("#/$defs/")]
        resolved = {**_resolved(target, definitions), **resolved}
    return resolved


def _of_schema(error: ValidationError) -> Iterator[Problem]:
    path = _path(error.absolute_path)
    if error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                yield Problem(path=f"{path}.{key}", message="it is missing")
    elif error.validator == "anyOf":
        yield Problem(path=f"{path}.hv:dn", message="it is missing")
    elif error.validator == "minItems":
        yield Problem(path=path, message="nobody stands there")
    else:
        needed = str(error.schema.get("title", "something else"))
        yield Problem(path=path, message=f"{needed} is needed, not {_shown(error.instance)}")


def _shown(value: object) -> str:
    if isinstance(value, str):
        return repr(value[:40])
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else kind_of(value)


def _path(steps: Any) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _of_list(fields: dict[str, object], path: str, limits: ListLimits) -> Iterator[Problem]:
    yield from _of_texts(fields, path, limits)
    created, expires = (_instant(fields.get(key)) for key in ("dc:date:created", "dc:date:expires"))
    if created is not None and expires is not None and not created < expires:
        yield Problem(path=f"{path}.dc:date:expires", message="the list expires before it begins to hold")
    yield from _of_endorsers(fields.get("hv:endorser"), f"{path}.hv:endorser")
    images = fields.get("hv:images")
    if not isinstance(images, list):
        return
    first: dict[str, int] = {}
    for index, entry in enumerate(images):
        image = entry.get("hv:image") if isinstance(entry, dict) else None
        if not isinstance(image, dict):
            continue
        place = f"{path}.hv:images[{index}].hv:image"
        yield from _of_texts(image, place, limits)
        identifier = image.get("dc:identifier")
        if isinstance(identifier, str):
            before = first.setdefault(identifier.lower() if is_uuid(identifier) else identifier, index)
            if before != index:
                said = f"the image {identifier[:60]!r} stands there twice, first at {path}.hv:images[{before}]"
                yield Problem(path=f"{place}.dc:identifier", message=said)
    counted = fields.get("ad:num_of_images")
    if isinstance(counted, str | int) and str(counted).strip() != str(len(images)):
        said = f"it says {str(counted)[:40]!r}, and {len(images)} are there"
        yield Problem(path=f"{path}.ad:num_of_images", message=said)


def _of_texts(fields: dict[str, object], path: str, limits: ListLimits) -> Iterator[Problem]:
    for key, limit in (("dc:title", limits.title_bytes), ("hv:uri", MAX_WORD_BYTES), ("hv:version", MAX_WORD_BYTES)):
        text = fields.get(key)
        if isinstance(text, str) and len(text.encode()) > limit:
            yield Problem(path=f"{path}.{key}", message=f"a text longer than {limit} bytes")
    version = fields.get("hv:version")
    if isinstance(version, str) and version.strip() and not Version.is_version(version.strip()):
        yield Problem(path=f"{path}.hv:version", message=f"it has no order: {version[:60]!r}")
    for key in ("dc:date:created", "dc:date:expires"):
        date = fields.get(key)
        if isinstance(date, str) and date and _instant(date) is None:
            yield Problem(path=f"{path}.{key}", message=f"there is no such date: {date[:40]!r}")


def _instant(value: object) -> Any:
    return read_instant(value) if isinstance(value, str) else None


def _of_endorsers(written: object, path: str) -> Iterator[Problem]:
    several = isinstance(written, list)
    for index, wrapper in enumerate(written if isinstance(written, list) else [written]):
        endorser = wrapper.get("hv:x509") if isinstance(wrapper, dict) else None
        if not isinstance(endorser, dict):
            continue
        for key in ("hv:dn", "hv:dn_x509", "hv:ca"):
            text = endorser.get(key)
            if not isinstance(text, str):
                continue
            try:
                DistinguishedName.parse(text)
            except ValueError as problem:
                place = f"{path}[{index}]" if several else path
                yield Problem(path=f"{place}.hv:x509.{key}", message=str(problem))
