# SPDX-License-Identifier: Apache-2.0
"""Pieces of VM templates that an administrator keeps in a file: as XML, or a line for each attribute.

::

    # /etc/coppice/one-template.conf
    MEMORY = 2048
    SCHED_REQUIREMENTS = CLUSTER_ID="100"
    GRAPHICS/TYPE = SPICE
    GRAPHICS/LISTEN = 127.0.0.1

What follows the first ``=`` is the value as it stands: there are no quotes to close. Nothing of an image list gets into
what is read here, and nothing of it is filled in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.opennebula import document
from coppice.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.cloud.opennebula.document import Attributes, Value

MAX_BYTES = 256 * 1024
_COPPICES = frozenset({"NAME", "DISK", "TEMPLATE", "TEMPLATE_ID", "IMAGE_ID"})
"""What Coppice itself decides."""
_OF_IMAGES = frozenset(
    {
        "CLONING_ID",
        "DATASTORE_ID",
        "DEV_PREFIX",
        "DISK_TYPE",
        "DRIVER",
        "ERROR",
        "FORMAT",
        "FS",
        "MD5",
        "PATH",
        "PERSISTENT",
        "PUBLIC",
        "SHA1",
        "SIZE",
        "SOURCE",
        "STATE",
        "TYPE",
        "URL_ARGS",
    }
)
"""What says where an image's bytes come from and what they are: none of a site's affair."""
_PREFIXES = ("COPPICE_", "VMCATCHER_EVENT_")


def read_pieces(path: Path) -> Attributes:
    """Return the attributes that a file holds, in its order.

    Raises:
        SettingsError: It cannot be read, or an attribute is wrong, or Coppice's own.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise _wrong(path, f"it is longer than {MAX_BYTES} bytes")
        text = data.decode("utf-8")
    except OSError as problem:
        raise _wrong(path, problem.strerror or str(problem)) from problem
    except UnicodeDecodeError as problem:
        raise _wrong(path, "it is not UTF-8 text") from problem
    found = _from_xml(path, text) if text.lstrip().startswith("<") else _from_lines(path, text)
    for name, value in found:
        for each in (name, *(() if isinstance(value, str) else (part for part, _ in value))):
            if document.NAME.fullmatch(each) is None:
                raise _wrong(path, f"{each[:60]!r} is no name of an attribute: capitals, digits and underscores")
        check_name(name, str(path), of_images=False)
    return found


def check_name(name: str, where: str, *, of_images: bool = True) -> None:
    """Refuse an attribute that is not the site's to set.

    Args:
        name: Of the attribute.
        where: Where it stands, for the error.
        of_images: It would be written on images, too.

    Raises:
        SettingsError: It is Coppice's own.
    """
    if name in _COPPICES or name.startswith(_PREFIXES) or (of_images and name in _OF_IMAGES):
        raise SettingsError(
            f"{where}: the attribute {name} is Coppice's to set",
            resolution="Remove it there. The name comes from `image_name`, where an image lies from `datastores`.",
        )


def _from_lines(path: Path, text: str) -> Attributes:
    found: list[tuple[str, Value]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, separator, value = line.partition("=")
        name, slash, part = key.strip().partition("/")
        if not separator or not value.strip():
            raise _wrong(path, f"line {number} is not of the form NAME = value")
        if not slash:
            found.append((name, value.strip()))
        elif found and found[-1][0] == name and _continues(found[-1][1], part):
            found[-1] = (name, (*_pairs(found[-1][1]), (part, value.strip())))
        else:
            # The same part once more begins another of that name: a second NIC.
            found.append((name, ((part, value.strip()),)))
    return tuple(found)


def _continues(value: Value, part: str) -> bool:
    return not isinstance(value, str) and part not in dict(value)


def _pairs(value: Value) -> tuple[tuple[str, str], ...]:
    return () if isinstance(value, str) else value


def _from_xml(path: Path, text: str) -> Attributes:
    from coppice.cloud.opennebula.wire import parsed

    try:
        root = parsed(text)
    except ValueError as problem:
        raise _wrong(path, str(problem)) from problem
    if root.tag != "TEMPLATE":
        raise _wrong(path, "its root is not TEMPLATE")
    for child in root:
        if any(len(part) for part in child):
            raise _wrong(path, f"{child.tag[:60]} is more than two levels deep")
    found: list[tuple[str, Value]] = []
    for name, value in document.read(root):
        if isinstance(value, str):
            found.append((name, value.strip()))
        else:
            found.append((name, tuple((part, inner.strip()) for part, inner in value)))
    return tuple(found)


def _wrong(path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"the pieces of templates in {path} cannot be used: {why}",
        resolution="Write one `NAME = value` or `NAME/PART = value` a line, or XML: "
        "<TEMPLATE><NAME>value</NAME></TEMPLATE>.",
        context={"path": str(path)},
    )
