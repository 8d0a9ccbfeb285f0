# SPDX-License-Identifier: Apache-2.0
"""``coppice:delta`` and ``coppice:mirrors`` of an image of a list ⇄ `ImageDelta` and addresses.

A delta in a form that this version does not know is kept as it was written, among what is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.formats.delta_limits import DELTA_FORMAT, MAX_GUEST_BYTES, MAX_PACKS, MAX_PATCHES
from coppice.formats.fields import Fields
from coppice.imagelist.model import DeltaPatch, ImageDelta, RemoteFile
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Iterator

DELTA_KEY = "coppice:delta"
MIRRORS_KEY = "coppice:mirrors"
MAX_MIRRORS = 32
"""Most mirrors of an image."""


def read_mirrors(fields: Fields, *, what: str) -> tuple[str, ...]:
    """Take further addresses of the file, in their order.

    Raises:
        DocumentError: They are no array of addresses, or too many.
    """
    if fields.lacks(MIRRORS_KEY):
        fields.take(MIRRORS_KEY)
        return ()
    written = fields.array(MIRRORS_KEY)
    _bounded(fields, MIRRORS_KEY, written, MAX_MIRRORS)
    steps = {f"{MIRRORS_KEY}[{index}]": uri for index, uri in enumerate(written)}
    each = Fields(steps, fields.path, what)
    return tuple(each.word(step) for step in steps)


def read_delta(fields: Fields) -> ImageDelta | None:
    """Take how the image can be had without its whole file; None where it does not say, or in a form of another time.

    Raises:
        DocumentError: It says so in the form that is known, and cannot be read.
    """
    if fields.lacks(DELTA_KEY):
        fields.take(DELTA_KEY)
        return None
    written = fields.peek(DELTA_KEY)
    if not isinstance(written, dict) or written.get("format") != DELTA_FORMAT:
        return None
    delta = fields.group(DELTA_KEY)
    guest = delta.group("guest")
    size_bytes = guest.integer("size", least=1)
    if size_bytes > MAX_GUEST_BYTES:
        guest.refuse("size", f"no disk is longer than {MAX_GUEST_BYTES} bytes")
    return ImageDelta(
        guest_size_bytes=size_bytes,
        guest_checksum=_checksum(guest, "sha512"),
        index=_file(delta.group("index")),
        packs=tuple(_file(each) for each in _elements(delta, "packs", MAX_PACKS)),
        patches=tuple(
            DeltaPatch(origin=_checksum(each, "from"), file=_file(each))
            for each in _elements(delta, "patches", MAX_PATCHES)
        ),
    )


def write_delta(delta: ImageDelta) -> dict[str, object]:
    """Return a delta as the value of ``coppice:delta``."""
    return {
        "format": DELTA_FORMAT,
        "guest": {"size": delta.guest_size_bytes, "sha512": delta.guest_checksum.hexdigest},
        "index": _file_fields(delta.index),
        "packs": [_file_fields(each) for each in delta.packs],
        "patches": [{"from": each.origin.hexdigest, **_file_fields(each.file)} for each in delta.patches],
    }


def _elements(fields: Fields, key: str, most: int) -> Iterator[Fields]:
    written = fields.array(key)
    _bounded(fields, key, written, most)
    for index, each in enumerate(written):
        yield fields.element(key, index, each)


def _bounded(fields: Fields, key: str, written: list[object], most: int) -> None:
    if len(written) > most:
        fields.refuse(key, f"more than {most}")


def _file(fields: Fields) -> RemoteFile:
    return RemoteFile(
        uri=fields.word("uri"), size_bytes=fields.integer("size", least=1), checksum=_checksum(fields, "sha512")
    )


def _checksum(fields: Fields, key: str) -> Checksum:
    try:
        return Checksum("sha512", fields.word(key).lower())
    except ValueError as problem:
        fields.refuse(key, str(problem))


def _file_fields(file: RemoteFile) -> dict[str, object]:
    return {"uri": file.uri, "size": file.size_bytes, "sha512": file.checksum.hexdigest}
