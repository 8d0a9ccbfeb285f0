# SPDX-License-Identifier: Apache-2.0
"""Files with ``${name}`` in them, filled in from a definition's variables."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from coppice.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.definition.model import DefinedFile

_PLACE = re.compile(r"\$(\$\{|\{([^}\n]*)\})")


def content_of(file: DefinedFile, variables: Mapping[str, str]) -> bytes:
    """Return the bytes that ``file`` has in the appliance; ``$${`` in a template stands for ``${``.

    Raises:
        DefinitionError: It is no text, or names a variable that there is not.
    """
    if not file.is_template:
        return file.content
    try:
        text = file.content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise DefinitionError(
            f"the template of {file.path} is no text: {problem}",
            resolution="Write it in UTF-8, or leave out template = true.",
        ) from problem
    return _PLACE.sub(lambda found: _value(found, file, variables), text).encode()


def _value(found: re.Match[str], file: DefinedFile, variables: Mapping[str, str]) -> str:
    name = found[2]
    if name is None:
        return "${"
    if name in variables:
        return variables[name]
    line = found.string.count("\n", 0, found.start()) + 1
    near = difflib.get_close_matches(name, variables, n=1)
    known = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(variables)) or 'none'}."
    raise DefinitionError(
        f"line {line} of the template of {file.path} names the variable {name[:100]!r}, which there is not",
        resolution=f"Set it in [variables] ({known}) Where ${{ is meant as it stands, write $${{.",
    )
