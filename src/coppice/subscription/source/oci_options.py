# SPDX-License-Identifier: Apache-2.0
"""What a subscription to images in an OCI registry asks for: which repositories and tags, and who vouches for them."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.errors import InputError, KeyringError
from coppice.formats.cosign import KEY_FILE_LIMIT_BYTES, read_keys
from coppice.formats.oci import is_repository, parse_reference
from coppice.formats.oci_image import is_attachment_tag, split_staying_tag
from coppice.subscription.model import TrustBasis
from coppice.subscription.source.gathered import DEFAULT_VALID_DAYS
from coppice.subscription.source.options import COSIGN_KEY, NAMING_LIST, SourceOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.formats.cosign import PublicKey

DRIVER = "oci"
APIS = frozenset({"catalog", "harbor", "repository"})
_ADDRESS = re.compile(r"(oci(?:\+http)?)://([^/@?#]+)(?:/([^@:?#]*))?")
_PATTERN = re.compile(r"[A-Za-z0-9._*?-]{1,128}")
_ARCHITECTURE = re.compile(r"[A-Za-z0-9_]{1,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OciAddress:
    """Where the repositories are.

    Attributes:
        scheme: How the registry is asked: ``https`` or ``http``.
        registry: Host and port.
        project: What the repositories' names begin with; empty: nothing.
    """

    scheme: str
    registry: str
    project: str

    @property
    def root(self) -> str:
        """The registry's own address."""
        return f"{self.scheme}://{self.registry}"

    def uri(self, repository: str) -> str:
        """Return the address of a repository."""
        return f"oci{'' if self.scheme == 'https' else '+http'}://{self.registry}/{repository}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OciOptions:
    """What is asked for.

    Attributes:
        api: How the repositories are listed: ``catalog`` (the distribution's own), ``harbor``, or ``repository``: the
            address is the one repository.
        repositories: Instead of a listing: their names below the address.
        tags: Patterns of tags, each tag that is taken being an image; empty: those that move.
        not_tags: Patterns of tags that are not taken.
        architectures: In the words of the model; empty: any.
        architecture: Of images that do not say theirs; None: such images are unknown.
        keys: Files of public keys; one of them must have signed. Empty only when something else is the basis.
        naming_list: Name of the subscription whose signed list names what is trusted; None: none does.
        check_reference: Whether a signature must name the very repository.
        basis: By what the list is trusted.
        valid_days: How long a list holds after it was gathered.
    """

    api: str
    repositories: tuple[str, ...]
    tags: tuple[str, ...]
    not_tags: tuple[str, ...]
    architectures: tuple[str, ...]
    architecture: str | None
    keys: tuple[Path, ...]
    naming_list: str | None
    check_reference: bool
    basis: TrustBasis | None
    valid_days: float

    @property
    def choice(self) -> tuple[str, ...]:
        """What chooses the content, for the list's identifier."""
        parts = (self.repositories, self.tags, self.not_tags, self.architectures)
        chosen = tuple(",".join(sorted(part)) for part in parts)
        # One repository, and what lies below it, are two lists at one address.
        return (*chosen, self.api) if self.api == "repository" and not self.repositories else chosen

    def takes(self, tag: str) -> bool:
        """Tell whether a tag names an image that is wanted."""
        if is_attachment_tag(tag) or _matches(tag, self.not_tags):
            return False
        return _matches(tag, self.tags) if self.tags else split_staying_tag(tag) is None

    def takes_architecture(self, word: str) -> bool:
        """Tell whether images for an architecture are wanted."""
        return not self.architectures or word in self.architectures


def read_options(values: Mapping[str, object]) -> OciOptions:
    """Return a subscription's options.

    Raises:
        InputError: One is unknown, or has a value that cannot be.
    """
    options = SourceOptions(DRIVER, values)
    keys = tuple(Path(each) for each in options.texts(COSIGN_KEY))
    naming_list = options.optional_text(NAMING_LIST)
    bases = {
        repr(COSIGN_KEY): TrustBasis.COSIGN if keys else None,
        repr(NAMING_LIST): None if naming_list is None else TrustBasis.LIST,
        "'trust'": options.unsigned_basis(TrustBasis.TRANSPORT),
    }
    given = {name: basis for name, basis in bases.items() if basis is not None}
    if len(given) > 1:
        raise InputError(
            f"the source {DRIVER} has both {' and '.join(given)}: which of them is it?",
            resolution="With a key, every image must be signed by it; with a list, named in it. Leave the others out.",
        )
    found = OciOptions(
        api=options.choice("api", APIS, "catalog"),
        repositories=options.texts("repositories"),
        tags=options.texts("tags"),
        not_tags=options.texts("not_tags"),
        architectures=options.texts("architectures"),
        architecture=options.optional_text("architecture"),
        keys=keys,
        naming_list=naming_list,
        check_reference=options.flag("check_reference"),
        basis=next(iter(given.values()), None),
        valid_days=options.valid_days(DEFAULT_VALID_DAYS),
    )
    options.finish()
    _check(found)
    return found


def read_address(uri: str) -> OciAddress:
    """Return where the repositories are.

    Raises:
        InputError: It is no address of a registry or of a project of one.
    """
    match = _ADDRESS.fullmatch(uri)
    project = "" if match is None else (match[3] or "").strip("/")
    if match is not None:
        # With a repository and a tag it is what the one reader of references takes.
        found = parse_reference(f"{match[1]}://{match[2]}/{project or 'any'}:any")
        return OciAddress(scheme=found.scheme, registry=found.registry, project=project)
    raise InputError(
        f"{uri[:80]!a} is no project of an OCI registry",
        resolution="Write oci://registry[:port]/project, without a tag.",
    )


def load_keys(options: OciOptions) -> tuple[PublicKey, ...]:
    """Return the pinned keys, in their order, each once.

    Raises:
        KeyringError: A file cannot be read, or has no usable key.
    """
    found: dict[str, PublicKey] = {}
    for path in options.keys:
        for key in read_keys(_read_file(path), str(path)):
            found.setdefault(str(key.fingerprint), key)
    return tuple(found.values())


def _read_file(path: Path) -> bytes:
    try:
        # Not to wait for a writer, should it be a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise KeyringError(f"{path} is no regular file", context={"path": str(path)})
            return stream.read(KEY_FILE_LIMIT_BYTES + 1)
    except (OSError, ValueError) as problem:
        raise KeyringError(
            f"the public key {path} cannot be read: {problem}",
            resolution="Put the file back, or change the subscription's option.",
            context={"path": str(path)},
        ) from problem


def _check(options: OciOptions) -> None:
    for pattern in (*options.tags, *options.not_tags):
        if not _PATTERN.fullmatch(pattern):
            raise InputError(
                f"{pattern[:80]!a} is no pattern of tags",
                resolution="Write a tag, with * for any characters and ? for one.",
            )
    for name in options.repositories:
        if not is_repository(name):
            raise InputError(f"{name[:80]!a} names no repository", resolution="Write its name below the address.")
    for path in options.keys:
        if not path.is_absolute() or "\0" in str(path):
            raise InputError(
                f"the option {COSIGN_KEY!r} of the source {DRIVER} is {str(path)[:80]!r}; an absolute path is needed"
            )
    for word in (*options.architectures, *filter(None, [options.architecture])):
        if not _ARCHITECTURE.fullmatch(word):
            raise InputError(f"{word[:40]!a} is no architecture", resolution="Write x86_64 or aarch64.")


def _matches(tag: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(tag, pattern) for pattern in patterns)
