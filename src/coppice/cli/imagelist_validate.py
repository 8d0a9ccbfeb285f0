# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist validate``: whether a file has the form of an image list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.output import format_size, moment
from coppice.cli.words import Command, examples, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.imagelist.model import ImageList


@click.command(
    "validate",
    cls=Command,
    epilog=examples(
        "coppice imagelist validate general.list",
        exits="0 it has the form of an image list, 3 it has not, 5 it is signed and the signature does not hold",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@pass_context
def validate(context: Context, file: Path) -> Result:
    """Validate that FILE has the form of an image list, signed or plain. Whom to believe is not asked here."""
    from coppice.errors import UnsignedListError
    from coppice.formats.cms import open_message
    from coppice.formats.hepix import read_list
    from coppice.formats.names import distinguished_name

    message = read_document(file, context.settings.transfer.list_size_limit_bytes)
    signer = None
    try:
        opened = open_message(message)
    except UnsignedListError:
        content = read_list(message)
    else:
        content = read_list(opened.payload)
        signer = str(distinguished_name(opened.signer_certificate.subject))

    def render(output: Output) -> None:
        output.pairs(
            {
                "list": f"{content.title}, version {content.version}",
                "identifier": content.identifier,
                "signature": f"whole, by {signer}" if signer else "none",
                "expires": moment(content.validity.expires, context.clock.now()),
            }
        )
        rows = [[each.identifier, each.version, format_size(each.size_bytes), each.title] for each in content.images]
        output.table(["image", "version", "size", "title"], rows)

    return Result(command="imagelist validate", data={**describe_content(content), "signer": signer}, show=render)


def read_document(file: Path, limit_bytes: int) -> bytes:
    """Return what is in ``file``.

    Raises:
        UnreadableFileError: It cannot be read.
        DocumentError: It is longer than ``limit_bytes``.
    """
    from coppice.errors import DocumentError, UnreadableFileError

    try:
        with file.open("rb") as stream:
            content = stream.read(limit_bytes + 1)
    except OSError as problem:
        raise UnreadableFileError(f"cannot read {file}: {problem.strerror}", context={"path": str(file)}) from problem
    if len(content) > limit_bytes:
        raise DocumentError(
            f"{file} is longer than {limit_bytes} bytes",
            resolution="`transfer.list_size_limit` in the settings sets the limit.",
        )
    return content


def describe_content(content: ImageList) -> dict[str, object]:
    """Return what a list says, for ``--json``."""
    return {
        "identifier": content.identifier,
        "version": content.version,
        "title": content.title,
        "created": content.validity.created,
        "expires": content.validity.expires,
        "endorser": ", ".join(str(each.subject) for each in content.endorsers),
        "images": [
            {
                "identifier": each.identifier,
                "version": each.version,
                "title": each.title,
                "uri": each.uri,
                "size_bytes": each.size_bytes,
                "checksum": str(each.checksum),
            }
            for each in content.images
        ],
        "unreadable": content.unreadable,
    }
