# SPDX-License-Identifier: Apache-2.0
"""The indices of repositories of RPM packages, made up: what `createrepo_c` would write, without any package."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_COMMON = "http://linux.duke.edu/metadata/common"
_RPM = "http://linux.duke.edu/metadata/rpm"
_REPO = "http://linux.duke.edu/metadata/repo"


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeUpPackage:
    """A package of an index.

    Attributes:
        name: Its name.
        version: ``epoch:version-release``.
        architecture: Its architecture.
        obsoletes: ``name`` or ``name FLAG version``.
    """

    name: str
    version: str
    architecture: str = "x86_64"
    obsoletes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeUpAdvisory:
    """An advisory of an index.

    Attributes:
        packages: What it is about.
        kind: ``security``, ``bugfix``, ``enhancement`` …
        severity: As it says; empty: it does not.
    """

    packages: tuple[MadeUpPackage, ...]
    kind: str = "security"
    severity: str = "Important"


def primary(packages: Iterable[MadeUpPackage]) -> bytes:
    """Return a ``primary.xml``."""
    said = "".join(_package(each) for each in packages)
    return f'{_HEAD}<metadata xmlns="{_COMMON}" xmlns:rpm="{_RPM}">\n{said}</metadata>\n'.encode()


def updateinfo(advisories: Iterable[MadeUpAdvisory]) -> bytes:
    """Return an ``updateinfo.xml``."""
    return f"{_HEAD}<updates>\n{''.join(_advisory(each) for each in advisories)}</updates>\n".encode()


def repomd(files: Mapping[str, tuple[str, bytes]], *, timestamp: object, algorithm: str = "sha256") -> bytes:
    """Return a ``repomd.xml``.

    Args:
        files: Path and bytes, by kind.
        timestamp: When they were made.
        algorithm: Of their checksums.
    """
    said = "".join(
        f'<data type="{kind}"><checksum type="{algorithm}">{hashlib.new(algorithm, content).hexdigest()}</checksum>'
        f"<location href={quoteattr(path)}/><timestamp>{timestamp}</timestamp><size>{len(content)}</size></data>\n"
        for kind, (path, content) in files.items()
    )
    return f'{_HEAD}<repomd xmlns="{_REPO}"><revision>{timestamp}</revision>\n{said}</repomd>\n'.encode()


def write_repodata(
    folder: Path,
    packages: Iterable[MadeUpPackage],
    advisories: Iterable[MadeUpAdvisory] | None = None,
    *,
    timestamp: int,
    packed: str = "gz",
) -> None:
    """Write the index of a repository.

    Args:
        folder: Of the repository.
        packages: What it has.
        advisories: What it says of them; None: it says nothing.
        timestamp: When that was.
        packed: ``gz``, ``xz``, ``zst``, or empty: it is not.
    """
    contents = {"primary": primary(packages)}
    if advisories is not None:
        contents["updateinfo"] = updateinfo(advisories)
    ending = f".{packed}" if packed else ""
    files = {kind: (f"repodata/{kind}.xml{ending}", packer_of(packed)(content)) for kind, content in contents.items()}
    write_files(folder, files, timestamp=timestamp)


def write_files(folder: Path, files: Mapping[str, tuple[str, bytes]], *, timestamp: int) -> None:
    """Write an index of which the files are given: path and bytes, by kind."""
    (folder / "repodata").mkdir(parents=True, exist_ok=True)
    for path, content in files.values():
        (folder / path).write_bytes(content)
    (folder / "repodata" / "repomd.xml").write_bytes(repomd(files, timestamp=timestamp))


def packer_of(packed: str) -> Callable[[bytes], bytes]:
    """Return what packs bytes so."""
    import zstandard

    packers: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "xz": lzma.compress,
        "zst": zstandard.ZstdCompressor().compress,
    }
    return packers.get(packed, bytes)


def _package(package: MadeUpPackage) -> str:
    epoch, version, release = _split(package.version)
    obsoletes = "".join(_obsoleted(each) for each in package.obsoletes)
    return (
        f'<package type="rpm"><name>{package.name}</name><arch>{package.architecture}</arch>'
        f"<version epoch={quoteattr(epoch)} ver={quoteattr(version)} rel={quoteattr(release)}/>"
        f'<summary>A &amp; B</summary><format><rpm:provides><rpm:entry name="{package.name}"/></rpm:provides>'
        f"<rpm:obsoletes>{obsoletes}</rpm:obsoletes><file>/usr/bin/{package.name}</file></format></package>\n"
    )


def _obsoleted(said: str) -> str:
    name, *bound = said.split()
    if not bound:
        return f"<rpm:entry name={quoteattr(name)}/>"
    epoch, version, release = _split(bound[1])
    said_release = f" rel={quoteattr(release)}" if release else ""
    return (
        f"<rpm:entry name={quoteattr(name)} flags={quoteattr(bound[0])} epoch={quoteattr(epoch)} "
        f"ver={quoteattr(version)}{said_release}/>"
    )


def _advisory(advisory: MadeUpAdvisory) -> str:
    severity = f"<severity>{advisory.severity}</severity>" if advisory.severity else ""
    packages = ""
    for each in advisory.packages:
        epoch, version, release = _split(each.version)
        packages += (
            f"<package name={quoteattr(each.name)} version={quoteattr(version)} release={quoteattr(release)} "
            f'epoch={quoteattr(epoch)} arch="{each.architecture}" src="{each.name}.src.rpm">'
            f"<filename>{each.name}.rpm</filename></package>"
        )
    return (
        f'<update from="a@example.org" status="final" type="{advisory.kind}" version="1"><id>A-1</id>{severity}'
        f'<pkglist><collection short="c"><name>c</name>{packages}</collection></pkglist></update>\n'
    )


def _split(text: str) -> tuple[str, str, str]:
    epoch, colon, rest = text.rpartition(":")
    version, _, release = rest.partition("-")
    return (epoch if colon else "0"), version, release
