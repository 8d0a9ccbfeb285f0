# SPDX-License-Identifier: Apache-2.0
"""A checksum file → `ListedImage`: of the files that fit the pattern, the newest of each kind. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import DocumentError
from coppice.formats.architectures import kernel_name
from coppice.imagelist.model import ListedImage, UnreadableEntry
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.model.version import Version
from coppice.subscription.source.gathered import image_identifier_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coppice.formats.checksum_file import SummedFile
    from coppice.formats.limits import ListLimits
    from coppice.model.identifiers import ListIdentifier
    from coppice.subscription.source.files_options import FilesOptions, FilesPlace

VERSION, ARCHITECTURE = "version", "arch"
_FORMATS = {
    ".iso": "iso",
    ".qcow2": "qcow2",
    ".raw": "raw",
    ".vdi": "vdi",
    ".vhd": "vhd",
    ".vhdx": "vhdx",
    ".vmdk": "vmdk",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file that fits the pattern.

    Attributes:
        file: Which.
        version: By its name; empty: that does not say it.
        architecture: By its name or the options; None: neither says it.
        kind: What tells it from files of another image: the groups of the pattern that are not its version.
    """

    file: SummedFile
    version: str
    architecture: str | None
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The newest file of each kind.

    Attributes:
        wanted: One a kind.
        unclear: Kinds of which it cannot be told which file is the newest, and why.
    """

    wanted: tuple[Candidate, ...]
    unclear: Mapping[str, str]


def choose(files: Sequence[SummedFile], options: FilesOptions) -> Choice:
    """Return the newest file of each kind.

    Raises:
        MalformedListError: The names take too long to be told from each other.
    """
    kinds: dict[str, list[Candidate]] = {}
    for file in files:
        groups = options.pattern.match_whole(file.name)
        if groups is not None:
            found = _candidate(file, groups, options)
            kinds.setdefault(found.kind, []).append(found)
    wanted, unclear = [], {}
    for kind, candidates in kinds.items():
        try:
            wanted.append(_newest(candidates))
        except ValueError as problem:
            unclear[kind] = str(problem)
    return Choice(wanted=tuple(wanted), unclear=unclear)


def make_images(
    choice: Choice,
    options: FilesOptions,
    place: FilesPlace,
    sizes: Mapping[str, int],
    *,
    list_identifier: ListIdentifier,
    list_version: str,
    limits: ListLimits,
) -> tuple[tuple[ListedImage, ...], tuple[UnreadableEntry, ...]]:
    """Return the images, and the entries of which nothing can be said.

    Args:
        choice: Which files.
        options: What else is to be said of them.
        place: Where they are.
        sizes: Of files whose size nobody signed, as the server tells it: a bound.
        list_identifier: Of the list that they are for.
        list_version: Stands for the version of files whose name has none.
        limits: How many there may be.

    Raises:
        DocumentError: There are more than a list may have.
    """
    if len(choice.wanted) + len(choice.unclear) > limits.images:
        raise DocumentError(
            f"more than {limits.images} files fit the pattern",
            resolution="Narrow it, or raise lists.maximum_images in the settings.",
        )
    images: list[ListedImage] = []
    unreadable = [
        UnreadableEntry(identifier=image_identifier_of(list_identifier, kind), problem=problem)
        for kind, problem in choice.unclear.items()
    ]
    for each in choice.wanted:
        size = each.file.size_bytes or sizes.get(each.file.name)
        identifier = image_identifier_of(list_identifier, each.kind)
        problem = _problem(each, size)
        if problem is not None or size is None or each.file.checksum is None:
            unreadable.append(UnreadableEntry(identifier=identifier, problem=f"{each.file.name}: {problem}"))
            continue
        images.append(
            ListedImage(
                identifier=identifier,
                version=each.version or list_version,
                title=_title(each, options)[: limits.title_bytes // 4],
                description=each.file.name,
                uri=place.uri(each.file.name),
                size_bytes=size,
                checksum=each.file.checksum,
                declared_format=options.declared_format or _format(each.file.name),
                operating_system=OperatingSystem(
                    kind=options.kind,
                    distribution=options.distribution,
                    version=options.system_version,
                    architecture=each.architecture or "",
                ),
                hypervisor="",
                comments="",
                expires=None,
                requirements=Requirements(),
                groups=(),
                mpuri=None,
                base_mpuri=None,
            )
        )
    return tuple(images), tuple(unreadable)


def _candidate(file: SummedFile, groups: Mapping[str, str], options: FilesOptions) -> Candidate:
    architecture = groups.get(ARCHITECTURE) or options.architecture
    others = [f"{name}={text}" for name, text in sorted(groups.items()) if name != VERSION]
    return Candidate(
        file=file,
        version=groups.get(VERSION, ""),
        architecture=None if architecture is None else kernel_name(architecture),
        # A name has no line end: no two kinds have one spelling.
        kind="\n".join(others),
    )


def _newest(candidates: Sequence[Candidate]) -> Candidate:
    """Return the newest of the files of one kind.

    Raises:
        ValueError: It cannot be told.
    """
    unnamed = [each for each in candidates if not each.version]
    if unnamed and len(candidates) == 1:
        return unnamed[0]
    if unnamed:
        raise _undecided(unnamed[0], next(each for each in candidates if each is not unnamed[0]))
    ranked = sorted(((Version(each.version), each) for each in candidates), key=lambda pair: pair[0], reverse=True)
    if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
        raise _undecided(ranked[0][1], ranked[1][1])
    return ranked[0][1]


def _undecided(one: Candidate, other: Candidate) -> ValueError:
    return ValueError(
        f"{one.file.name} and {other.file.name} both fit the pattern, and which is the newer one cannot be told; a "
        "named group in it must tell them apart"
    )


def _problem(each: Candidate, size: int | None) -> str | None:
    if each.file.checksum is None:
        return "its checksum is of a kind by which anybody could have made the file (md5, sha1)"
    if each.architecture is None:
        return "it does not say for which architecture it is; the option `architecture` says it for all"
    return None if size else "its size is not known: the server does not have the file, or does not tell"


def _title(each: Candidate, options: FilesOptions) -> str:
    if options.title is None:
        return each.file.name
    return f"{options.title} ({each.architecture})" if ARCHITECTURE in options.pattern.groups else options.title


def _format(name: str) -> str | None:
    return next((found for ending, found in _FORMATS.items() if name.lower().endswith(ending)), None)
