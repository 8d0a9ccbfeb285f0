# SPDX-License-Identifier: Apache-2.0
"""Which RPM packages have updates: what repositories have, held against what is installed, by RPM's rules. Pure.

What the next build would install counts: the highest version of the same name for a processor that fits, or a package
that takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.factory.staleness import PackageUpdate
from coppice.formats.rpm_advisories import worst
from coppice.formats.rpm_index import is_modular
from coppice.formats.rpm_version import RpmVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from coppice.factory.model import Package
    from coppice.formats.rpm_advisories import SecurityFix
    from coppice.formats.rpm_index import RpmOffer

_NOARCH = "noarch"


@dataclass(frozen=True, slots=True, kw_only=True)
class RpmRepository:
    """A repository of RPM packages whose index was read.

    Attributes:
        name: For people.
        is_security: Whether all that it has are security updates: its name says so.
        tells_security: Whether it says which of its updates are.
        made_at: When its index was made.
        offers: Its packages by name.
        fixes: Packages that close security holes, by name.
    """

    name: str
    is_security: bool
    tells_security: bool
    made_at: datetime
    offers: Mapping[str, tuple[RpmOffer, ...]]
    fixes: Mapping[str, tuple[SecurityFix, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RpmFindings:
    """What was found out.

    Attributes:
        updates: Packages with updates, by name.
        undecided: Packages of modules of which there is a higher version, be it of their stream or of another.
        unreadable: Packages whose installed version is none.
        odd: Packages whose place another may take; which versions of them it does is said in a way that tells nobody.
    """

    updates: tuple[PackageUpdate, ...]
    undecided: tuple[str, ...]
    unreadable: tuple[str, ...]
    odd: tuple[str, ...]


def find_rpm_updates(
    packages: Iterable[Package], repositories: Sequence[RpmRepository], architecture: str
) -> RpmFindings:
    """Return the packages of which ``repositories`` have something higher, or something that takes their place.

    Args:
        packages: What is installed; what is not of RPM does not count.
        repositories: What there is.
        architecture: Of the system.
    """
    installed, unreadable = _installed(packages)
    comparison = _Comparison(repositories, architecture, {name for name, _ in installed})
    found: dict[str, PackageUpdate] = {}
    undecided: set[str] = set()
    for (name, own), version in sorted(installed.items()):
        if is_modular(version):
            if comparison.higher(name, own, version):
                undecided.add(name)
            continue
        update = comparison.update(name, own, version)
        if update is not None:
            # The same package of two architectures is one update.
            found[name] = update if name not in found else _joined(found[name], update)
    return RpmFindings(
        updates=tuple(found.values()),
        undecided=tuple(sorted(undecided)),
        unreadable=tuple(sorted(unreadable)),
        odd=tuple(sorted({name for (name, _), version in installed.items() if comparison.is_odd(name, version)})),
    )


def cover_rpms(packages: Iterable[Package], repositories: Sequence[RpmRepository]) -> bool:
    """Tell whether ``repositories`` have most of the packages: those that do not say nothing of them."""
    known = [
        package.manager == "rpm" and any(package.name in each.offers for each in repositories) for package in packages
    ]
    return sum(known) * 2 >= len(known)


class _Comparison:
    def __init__(self, repositories: Sequence[RpmRepository], architecture: str, names: set[str]) -> None:
        self._repositories, self._architecture = repositories, architecture
        self._takers: dict[str, list[tuple[RpmRepository, RpmOffer]]] = {}
        for repository in repositories:
            for offers in repository.offers.values():
                for offer in offers:
                    self._add_taker(repository, offer, names)

    def _add_taker(self, repository: RpmRepository, offer: RpmOffer, names: set[str]) -> None:
        # What is installed beside it has been found to go with it.
        if offer.obsoletes and not offer.is_modular and offer.name not in names and self._fits(offer, _NOARCH):
            for obsoleted in {each.name for each in offer.obsoletes} & names:
                self._takers.setdefault(obsoleted, []).append((repository, offer))

    def _fits(self, other: RpmOffer | SecurityFix, own: str) -> bool:
        """Tell whether a package can come in the place of one of the architecture ``own``."""
        return other.architecture in {_NOARCH, self._architecture if own == _NOARCH else own}

    def higher(self, name: str, own: str, version: str) -> list[tuple[RpmRepository, RpmOffer]]:
        """Return what is higher; with packages of modules, those of all streams."""
        return [
            (repository, offer)
            for repository in self._repositories
            for offer in repository.offers.get(name, ())
            if self._fits(offer, own)
            and offer.is_modular == is_modular(version)
            and RpmVersion(offer.version) > RpmVersion(version)
        ]

    def update(self, name: str, own: str, version: str) -> PackageUpdate | None:
        installed = RpmVersion(version)
        taking = [
            (repository, offer)
            for repository, offer in self._takers.get(name, ())
            if any(each.name == name and each.has(installed) for each in offer.obsoletes)
        ]
        found = taking or self.higher(name, own, version)
        if not found:
            return None
        _, best = max(found, key=lambda each: RpmVersion(each[1].version))
        fixes = [
            fix
            for fix in self._fixes(best.name)
            if self._closes(fix, own, RpmVersion(best.version), None if taking else installed)
        ]
        is_security: bool | None = bool(fixes) or any(repository.is_security for repository, _ in found)
        if not is_security and not all(repository.tells_security for repository, _ in found):
            is_security = None
        return PackageUpdate(
            name=name,
            installed=version,
            available=f"{best.name} {best.version}" if taking else best.version,
            is_security=is_security,
            severity=worst(fix.severity for fix in fixes),
        )

    def is_odd(self, name: str, version: str) -> bool:
        """Tell whether something may take the place of a package, and nobody can tell whether it does."""
        return not is_modular(version) and any(
            each.name == name and each.is_odd for _, offer in self._takers.get(name, ()) for each in offer.obsoletes
        )

    def _fixes(self, name: str) -> Iterator[SecurityFix]:
        for repository in self._repositories:
            yield from repository.fixes.get(name, ())

    def _closes(self, fix: SecurityFix, own: str, available: RpmVersion, installed: RpmVersion | None) -> bool:
        """Tell whether a hole is closed by what is available, and was open in what is installed.

        Of what takes another's place, no older version was installed: it counts where it is itself the fix.
        """
        if is_modular(fix.version) or not self._fits(fix, own):
            return False
        fixed = RpmVersion(fix.version)
        return fixed == available if installed is None else installed < fixed <= available


def _installed(packages: Iterable[Package]) -> tuple[dict[tuple[str, str], str], set[str]]:
    """Return the highest version of each package and architecture: of kernels, several are installed side by side."""
    found: dict[tuple[str, str], str] = {}
    unreadable: set[str] = set()
    for package in packages:
        if package.manager != "rpm":
            continue
        key = (package.name, package.architecture)
        try:
            if key not in found or RpmVersion(package.version) > RpmVersion(found[key]):
                RpmVersion(package.version)
                found[key] = package.version
        except ValueError:
            unreadable.add(package.name)
    return found, unreadable


def _joined(one: PackageUpdate, other: PackageUpdate) -> PackageUpdate:
    if one.is_security or not other.is_security:
        return one
    return other
