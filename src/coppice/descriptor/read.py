# SPDX-License-Identifier: Apache-2.0
"""Read a descriptor file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import DocumentError, UnreadableFileError
from coppice.formats import descriptor as form
from coppice.formats.strict_json import MAX_DOCUMENT_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.descriptor.model import Descriptor


def read_descriptor(path: Path) -> Descriptor:
    """Return the descriptor in the file ``path``.

    Raises:
        UnreadableFileError: The file cannot be read.
        DocumentError: It is no descriptor.
    """
    try:
        with path.open("rb") as stream:
            payload = stream.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as problem:
        raise UnreadableFileError(
            f"the descriptor {path} cannot be read: {problem.strerror}",
            resolution="Check the path, and that this user may read the file.",
            context={"path": str(path)},
        ) from problem
    try:
        return form.read_descriptor(payload)
    except DocumentError as problem:
        raise DocumentError(
            f"{path}: {problem.message}",
            details=problem.details,
            resolution="The reference page on descriptors says what it must hold.",
            context={**problem.context, "file": str(path)},
        ) from problem
