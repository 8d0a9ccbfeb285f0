# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist validate``: whether a file has the form of an image list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.files import unreadable
from coppice.cli.output import format_size, moment
from coppice.cli.words import Command, examples, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.errors import CoppiceError
    from coppice.formats.hepix_check import Findings
    from coppice.formats.limits import ListLimits
    from coppice.imagelist.model import ImageList


@click.command(
    "validate",
    cls=Command,
    epilog=examples(
        "coppice imagelist validate general.list",
        "coppice imagelist validate --profile lenient --json image_list.json",
        exits="0 it has the form of an image list, 3 it has not, 5 it is signed and the signature does not hold",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--profile",
    type=click.Choice(["strict", "lenient"]),
    default="strict",
    show_default=True,
    help="How much of the format it must keep to.",
)
@pass_context
def validate(context: Context, file: Path, profile: str) -> Result:
    """Validate that FILE has the form of an image list, signed or plain, and say everything that is wrong with it.

    Whom to believe is not asked here.
    """
    from coppice.formats.hepix_check import find_problems
    from coppice.imagelist.model import Profile

    limits = context.settings.lists
    payload, signer = _payload(read_document(file, limits.message_bytes), limits)
    findings = find_problems(payload, profile=Profile(profile), limits=limits)
    content = findings.content
    data: dict[str, object] = {
        "valid": not findings.problems,
        "profile": profile,
        "signer": signer,
        "problems": findings.problems,
        "problems_truncated": findings.truncated,
    }

    def render(output: Output) -> None:
        if content is not None:
            _render_content(output, content, signer, context)
        if findings.problems:
            output.table(["place", "problem"], [[each.path, each.message] for each in findings.problems])

    described = {} if content is None else describe_content(content)
    return Result(
        command="imagelist validate",
        data={**described, **data},
        status=Status.ERROR if findings.problems else Status.SUCCESS,
        errors=_summary(file, findings),
        show=render,
    )


def _payload(document: bytes, limits: ListLimits) -> tuple[bytes, str | None]:
    from coppice.errors import UnsignedListError
    from coppice.formats.cms import open_message
    from coppice.formats.names import distinguished_name

    try:
        opened = open_message(document, limits=limits)
    except UnsignedListError:
        return document, None
    return opened.payload, str(distinguished_name(opened.signer_certificate.subject))


def _summary(file: Path, findings: Findings) -> tuple[CoppiceError, ...]:
    from coppice.errors import DocumentError

    if not findings.problems:
        return ()
    first = findings.problems[0]
    count = f"{'more than ' if findings.truncated else ''}{len(findings.problems)}"
    return (
        DocumentError(
            f"{file} is no image list in order: {count} problem{'' if count == '1' else 's'}, "
            f"the first at {first.path}: {first.message}",
            resolution="The whole list would be refused."
            if findings.content is None
            else "Subscribers would read the rest of it.",
            context={"path": str(file)},
        ),
    )


def _render_content(output: Output, content: ImageList, signer: str | None, context: Context) -> None:
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


def read_document(file: Path, limit_bytes: int) -> bytes:
    """Return what is in ``file``.

    Raises:
        UnreadableFileError: It cannot be read.
        DocumentError: It is longer than ``limit_bytes``.
    """
    from coppice.errors import DocumentError

    try:
        with file.open("rb") as stream:
            content = stream.read(limit_bytes + 1)
    except OSError as problem:
        raise unreadable(file, problem) from problem
    if len(content) > limit_bytes:
        raise DocumentError(
            f"{file} is longer than {limit_bytes} bytes",
            resolution="`transfer.list_size_limit_bytes` in the settings sets the limit.",
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
