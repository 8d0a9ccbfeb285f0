# SPDX-License-Identifier: Apache-2.0
"""``coppice appliance packages``, ``difference``, ``sbom``, ``why``: what is in an appliance, and what put it there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.output import counted
from coppice.cli.words import Command, examples, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.factory.difference import PackageChange
    from coppice.factory.evidence.lineage import Origin
    from coppice.factory.model import Ancestor, Package

_VERSION = click.option("--version", "version", help="Which version (default: the newest).")
_FORMS = ("cyclonedx", "spdx")


@click.command(
    "packages",
    cls=Command,
    epilog=examples(
        "coppice appliance packages debian-12",
        "coppice appliance packages debian-12 --version 2026.11.26",
        exits="0 listed, 12 no such version, or nothing is known of its build",
    ),
)
@click.argument("name")
@_VERSION
@pass_context
def packages(context: Context, name: str, version: str | None) -> Result:
    """List the packages that are installed in the appliance NAME."""
    from coppice.workflows.evidence import find_version, packages_of

    found = packages_of(find_version(context.database, name, version))
    return Result(
        command="appliance packages",
        data=[_package(package) for package in found],
        show=lambda output: output.table(
            ["package", "version", "architecture", "source"],
            [[each.name, each.version, each.architecture, each.source or each.name] for each in found],
        ),
    )


@click.command(
    "difference",
    cls=Command,
    epilog=examples(
        "coppice appliance difference debian-12",
        "coppice appliance difference debian-12 2026.11.01 2026.11.26",
        exits="0 told, 12 no such versions, or nothing is known of the build of one",
    ),
)
@click.argument("name")
@click.argument("before", required=False)
@click.argument("after", required=False)
@pass_context
def difference(context: Context, name: str, before: str | None, after: str | None) -> Result:
    """Tell what changed among the packages of NAME between the versions BEFORE and AFTER.

    Without versions: between the newest one and the one before it. With BEFORE alone: between it and the newest one.
    """
    from coppice.factory.difference import package_difference
    from coppice.workflows.evidence import find_version, packages_of, version_before

    newer = find_version(context.database, name, after)
    older = version_before(context.database, newer) if before is None else find_version(context.database, name, before)
    changes = package_difference(packages_of(older), packages_of(newer))

    def render(output: Output) -> None:
        output.pairs({"before": older.version, "after": newer.version, "changes": len(changes)})
        if changes:
            output.table(["package", "change", "before", "after"], [_row(change) for change in changes])

    data = {
        "name": name,
        "before": older.version,
        "after": newer.version,
        "changes": [
            {
                "name": each.name,
                "architecture": each.architecture,
                "change": str(each.change),
                "before": each.before,
                "after": each.after,
            }
            for each in changes
        ],
    }
    return Result(command="appliance difference", data=data, show=render)


@click.command(
    "sbom",
    cls=Command,
    epilog=examples(
        "coppice appliance sbom debian-12 debian-12.cdx.json",
        "coppice appliance sbom debian-12 debian-12.spdx.json --form spdx",
        exits="0 written, 10 the file cannot be written, 12 no such version, or nothing is known of its build",
    ),
)
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--form", type=click.Choice(_FORMS), default=_FORMS[0], show_default=True, help="Of the document.")
@_VERSION
@pass_context
def sbom(context: Context, name: str, file: Path, form: str, version: str | None) -> Result:
    """Write the bill of materials of the appliance NAME to FILE: CycloneDX 1.6 or SPDX 2.3, as JSON."""
    from coppice.atomic import write_bytes
    from coppice.workflows.evidence import bill_in, find_version

    found = find_version(context.database, name, version)
    content = bill_in(found, form)
    write_bytes(file, content)
    return Result(
        command="appliance sbom",
        data={"name": name, "version": found.version, "form": form, "file": file, "size_bytes": len(content)},
        show=lambda output: output.line(f"{file}: {name} {found.version}, {form}"),
    )


@click.command(
    "why",
    cls=Command,
    epilog=examples(
        "coppice appliance why web /usr/sbin/nginx",
        "coppice appliance why web /etc/motd --version 2026.11.26",
        exits="0 told, 12 no such version or file, or nothing is known of its build",
    ),
)
@click.argument("name")
@click.argument("path")
@_VERSION
@pass_context
def why(context: Context, name: str, path: str, version: str | None) -> Result:
    """Tell what put the file PATH into the appliance NAME: which package or definition, of which ancestor."""
    from coppice.factory.evidence.lineage import origins_of
    from coppice.workflows.evidence import file_in, find_version, lineage_of

    found = find_version(context.database, name, version)
    lineage = lineage_of(found, settings=context.settings)
    file = file_in(lineage, path)
    origins = origins_of(path, lineage.layers)

    def render(output: Output) -> None:
        output.pairs(
            {"file": file.path, "size": file.size_bytes, "sha256": file.sha256 or None, "link to": file.target}
        )
        output.table(
            ["since", "put there by", "package", "version", "source"],
            [_cause(origin) for origin in origins],
        )

    return Result(
        command="appliance why",
        data={
            "name": name,
            "version": found.version,
            "file": file,
            "origins": [_origin(origin) for origin in origins],
            "lineage": [layer.result.definition.name for layer in lineage.layers],
            "missing": None if lineage.missing is None else lineage.missing.definition,
        },
        messages=() if lineage.missing is None else (_incomplete(lineage.missing, len(lineage.layers)),),
        show=render,
    )


def _incomplete(missing: Ancestor, known: int) -> str:
    return (
        f"nothing is kept of the ancestor {missing.definition} ({missing.image_digest[:23]}…): what it had counts as "
        f"put there by the last of the {counted(known, 'build')} that are known"
    )


def _package(package: Package) -> dict[str, object]:
    return {
        "name": package.name,
        "version": package.version,
        "architecture": package.architecture,
        "source": package.source or package.name,
        "source_version": package.source_version or package.version,
        "manager": package.manager,
        "licence": package.licence,
    }


def _row(change: PackageChange) -> list[object]:
    return [change.name, str(change.change), change.before, change.after]


def _cause(origin: Origin) -> list[object]:
    package = origin.package
    said = {
        "package": "a package",
        "definition": "the definition's files",
        "script": "a provisioner: " + ", ".join(origin.provisioners)
        if origin.provisioners
        else "the builder, or a package's script",
    }[str(origin.cause)]
    if package is None:
        return [origin.definition, said, None, None, None]
    return [origin.definition, said, package.name, package.version, package.source or package.name]


def _origin(origin: Origin) -> dict[str, object]:
    return {
        "definition": origin.definition,
        "build": origin.key,
        "cause": str(origin.cause),
        "package": None if origin.package is None else _package(origin.package),
        "provisioners": origin.provisioners,
        "sha256": origin.file.sha256,
    }
