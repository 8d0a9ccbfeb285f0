# SPDX-License-Identifier: Apache-2.0
"""What a subscription to image files asks for: where they are, how they are called, and what else is to be said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from coppice.errors import InputError
from coppice.formats.directory_listing import checked_name
from coppice.model.image import DiskFormat
from coppice.subscription.source.gathered import DEFAULT_VALID_DAYS
from coppice.subscription.source.keyring_trust import KeyringTrust, read_trust
from coppice.subscription.source.options import SourceOptions
from coppice.subscription.source.pattern import Pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVER = "files"
DEFAULT_CHECKSUMS = "SHA256SUMS"
DEFAULT_MAX_ITEMS = 3
_MOST_ITEMS = 100
_SCHEMES = frozenset({"https", "http", "file"})
_SAFE_IN_PATH = "/:@!$&'()*+,;=~-._"
_ARCHITECTURE = re.compile(r"[A-Za-z0-9_]{1,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesOptions:
    """What is asked for.

    Attributes:
        trust: Who must have signed.
        pattern: What the names of images fit, as the checksum file writes them. The groups ``version`` and ``arch``
            mean that; by any other, one image is told from another.
        directory: What the names of directories fit, of which the newest counts; None: the address is the directory.
        below: Where in that directory the files are; empty: in itself.
        checksums: Name of the checksum file; None: ``checksums_pattern`` says it.
        checksums_pattern: What the name of the checksum file fits; None: ``checksums`` says it.
        signature: Name of the signature's file; None: the checksum file's, with one of the usual endings.
        max_items: How many of the newest directories are looked at.
        valid_days: How long a list holds after its date.
        title: Of the images; None: the file's name.
        kind: Family of the operating system.
        distribution: Of the operating system.
        system_version: Of the operating system.
        architecture: Of images whose name does not say it; None: such are unknown.
        declared_format: Of the files; None: by their ending.
    """

    trust: KeyringTrust
    pattern: Pattern
    directory: Pattern | None
    below: str
    checksums: str | None
    checksums_pattern: Pattern | None
    signature: str | None
    max_items: int
    valid_days: float
    title: str | None
    kind: str
    distribution: str
    system_version: str
    architecture: str | None
    declared_format: str | None

    @property
    def choice(self) -> tuple[str, ...]:
        """What chooses the content, for the list's identifier."""
        return ("" if self.directory is None else self.directory.text, self.below, self.pattern.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesPlace:
    """Where files are.

    Attributes:
        base: The subscription's address; ends with a slash.
        directory: Name of the directory below it; empty: none.
        below: Where in there.
    """

    base: str
    directory: str = ""
    below: str = ""

    @property
    def root(self) -> str:
        """Address of the directory that has the checksum file; ends with a slash."""
        parts = [part for part in (self.directory, self.below) if part]
        return self.base + "".join(quote(part, safe=_SAFE_IN_PATH) + "/" for part in parts)

    def uri(self, name: str) -> str:
        """Return the address of a file."""
        return self.root + quote(name, safe=_SAFE_IN_PATH)


def read_options(values: Mapping[str, object]) -> FilesOptions:
    """Return a subscription's options.

    Raises:
        InputError: One is unknown, or has a value that cannot be.
    """
    options = SourceOptions(DRIVER, values)
    checksums, by_pattern = options.optional_text("checksums"), _pattern(options, "checksums_pattern")
    architecture, declared = options.optional_text("architecture"), options.optional_text("format")
    found = FilesOptions(
        trust=read_trust(options),
        pattern=Pattern(options.text("pattern")),
        directory=_pattern(options, "directory"),
        below=_relative(options.text("below", ".")),
        checksums=None if by_pattern is not None else _name("checksums", checksums or DEFAULT_CHECKSUMS),
        checksums_pattern=by_pattern,
        signature=_optional_name(options, "signature"),
        max_items=options.whole_number("max_items", DEFAULT_MAX_ITEMS, least=1, most=_MOST_ITEMS),
        valid_days=options.valid_days(DEFAULT_VALID_DAYS),
        title=options.optional_text("title"),
        kind=options.text("os", "Linux"),
        distribution=options.text("os_name", "Linux"),
        system_version=options.optional_text("os_version") or "",
        architecture=architecture,
        declared_format=declared,
    )
    options.finish()
    if checksums is not None and by_pattern is not None:
        raise InputError("there are both 'checksums' and 'checksums_pattern': which of the two is it?")
    if architecture is not None and not _ARCHITECTURE.fullmatch(architecture):
        raise InputError(f"the option 'architecture' is {architecture[:40]!r}, which is none")
    if declared is not None and declared not in {str(each) for each in DiskFormat}:
        raise InputError(
            f"the option 'format' is {declared[:40]!r}", resolution=f"One of {', '.join(map(str, DiskFormat))}."
        )
    return found


def read_address(uri: str) -> FilesPlace:
    """Return the place that an address is of: a directory.

    Raises:
        InputError: It is no such address.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as problem:
        raise InputError(f"the address {uri[:200]!r} is malformed: {problem}") from problem
    is_here = parts.netloc in {"", "localhost"} if parts.scheme == "file" else bool(parts.netloc)
    if parts.scheme not in _SCHEMES or parts.query or parts.fragment or not is_here:
        raise InputError(
            f"image files cannot be fetched from {uri[:200]!r}",
            resolution="Use the https://, http:// or file:/// address of the directory that they are in.",
        )
    if "@" in parts.netloc:
        raise InputError(
            "the address of the directory has user information in it, which would be shown with every image",
            resolution="Leave it out, and name a credential (--credential).",
        )
    return FilesPlace(base=urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + "/", "", "")))


def place_of(uri: str, base: FilesPlace, options: FilesOptions) -> tuple[FilesPlace, str] | None:
    """Return where a checksum file is that came from ``uri``, and its name; None where the options lead not there."""
    rest, middle = uri.removeprefix(base.base), f"{options.below}/" if options.below else ""
    if rest == uri:
        return None
    directory, name = "", unquote(rest)
    if options.directory is not None:
        directory, _, name = name.partition("/")
        if options.directory.match_whole(directory) is None:
            return None
    name = name.removeprefix(middle)
    place = FilesPlace(base=base.base, directory=directory, below=options.below)
    is_it = (
        name == options.checksums
        if options.checksums_pattern is None
        else options.checksums_pattern.match_whole(name) is not None
    )
    return (place, name) if is_it and checked_name(name) and place.uri(name) == uri else None


def _pattern(options: SourceOptions, name: str) -> Pattern | None:
    text = options.optional_text(name)
    return None if text is None else Pattern(text)


def _name(option: str, text: str) -> str:
    if checked_name(text) is None:
        raise InputError(f"the option {option!r} is {text[:80]!r}, which is no name of a file")
    return text


def _optional_name(options: SourceOptions, option: str) -> str | None:
    text = options.optional_text(option)
    return None if text is None else _name(option, text)


def _relative(text: str) -> str:
    if text == ".":
        return ""
    parts = text.strip("/").split("/")
    if any(checked_name(part) is None for part in parts):
        raise InputError(f"the option 'below' is {text[:80]!r}, which is no path from one directory to one in it")
    return "/".join(parts)
