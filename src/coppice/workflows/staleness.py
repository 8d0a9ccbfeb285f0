# SPDX-License-Identifier: Apache-2.0
"""From the catalogue to decisions: what has changed since each appliance was built, and what is to be built anew.

Nothing is built. The record of a version's build says what is in it; its repositories' signed indices say what there is
now; its definition and its parent are compared with what they were.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.catalogue.catalogue import Catalogue
from coppice.catalogue.model import ReferencedImage
from coppice.errors import BootTestError, BuildError, CoppiceError, DefinitionError, NotFoundError, StateError
from coppice.factory.bootstrap.rpm_releases import is_rpm_release
from coppice.factory.bootstrap.suites import find_suite, sources
from coppice.factory.build import load_build_result
from coppice.factory.staleness import Choice, Decision, Evidence, are_covered, decide, find_updates
from coppice.factory.staleness_notes import read_notes
from coppice.formats.definition import definition_document
from coppice.workflows.build import factory_root, find_kept_build, parents_of
from coppice.workflows.repositories import Repositories, Source, parse_source
from coppice.workflows.rpm_repositories import RpmRepositories

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from coppice.catalogue.model import ApplianceVersion
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.definition.model import Definition
    from coppice.factory.model import BuildResult, Package
    from coppice.factory.staleness import PackageUpdate, Repository
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.build import Find

_DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_NOT_COMPARED = frozenset({"path", "name"})
FOREIGN = Decision(
    choice=Choice.NEVER, triggers=(), reasons=("it was not built here: nothing is known of its packages",)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """An appliance, what is known of it, and what is to be done.

    Attributes:
        version: Its newest version.
        decision: What is to be done.
        record: The build that the version is; None: it was not built here, or that is not known any more.
        definition: What it would be built from now; None: that is not there, or wrong.
        evidence: What is known; None: nothing is.
        errors: What could not be found out, and why.
    """

    version: ApplianceVersion
    decision: Decision
    record: BuildResult | None = None
    definition: Definition | None = None
    evidence: Evidence | None = None
    errors: tuple[CoppiceError, ...] = ()

    @property
    def name(self) -> str:
        """Of the appliance."""
        return self.version.appliance.name


class Appraiser:
    """Judges appliances; repositories are read once for all of them.

    Args:
        settings: Where things are.
        database: Where the catalogue is.
        clock: Tells the time.
        monitor: Where progress is told.
        find: Returns the definition of a name.
    """

    def __init__(self, *, settings: Settings, database: Database, clock: Clock, monitor: Monitor, find: Find) -> None:
        self._settings = settings
        self._catalogue = Catalogue(database, clock)
        self._clock = clock
        self._find = find
        self._repositories = Repositories(settings, clock=clock, monitor=monitor)
        self._rpm_repositories = RpmRepositories(settings, clock=clock, monitor=monitor)

    def appraise(self, names: Collection[str] = (), *, waits: bool = True) -> tuple[Appraisal, ...]:
        """Return what is to be done with each appliance of the catalogue.

        Args:
            names: Only these; empty: all.
            waits: Whether intervals, failed tries and policies that are switched off count.

        Raises:
            NotFoundError: There is no such appliance.
            DatabaseError: The database failed.
        """
        wanted = names or [each.name for each in self._catalogue.appliances()]
        found = [self._one(self._catalogue.versions(name)[-1], waits=waits) for name in dict.fromkeys(wanted)]
        chosen = {each.name for each in found if each.decision.choice is Choice.REBUILD}
        return tuple(self._after_parents(each, chosen) if waits and each.name in chosen else each for each in found)

    def _after_parents(self, appraisal: Appraisal, chosen: set[str]) -> Appraisal:
        """Have an appliance wait whose parent's newest build does not boot: nothing that boots comes of it."""
        assert appraisal.definition is not None  # noqa: S101 - without one, nothing is decided to be built
        root, decision = factory_root(self._settings), appraisal.decision
        try:
            above = [each.name for each in parents_of(appraisal.definition, self._find)]
        except CoppiceError:
            # Told when it is built.
            return appraisal
        for name in above:
            failed = read_notes(root, name).failed
            if name not in chosen and failed is not None and failed.code == BootTestError.code:
                why = f"it waits for {name}, which it is built upon and whose newest build does not boot"
                reasons = (*decision.reasons, why)
                later = replace(decision, choice=Choice.LATER, reasons=reasons, due_at=failed.next_at())
                return replace(appraisal, decision=later)
        return appraisal

    def updates(
        self, packages: Iterable[Package], definition: Definition
    ) -> tuple[tuple[PackageUpdate, ...] | None, tuple[CoppiceError, ...]]:
        """Return the packages that have higher versions where ``definition`` is built from, and what hid them.

        None: nothing is known. Where it is only known in part, what is known is told beside the errors.
        """
        if definition.snapshot:
            # It is built from that state again, whatever there is today.
            return (), ()
        if is_rpm_release(definition.suite):
            return self._rpm_repositories.updates(packages, definition)
        errors: list[CoppiceError] = []
        known: list[Repository] = []
        system = definition.operating_system
        architecture = _DEBIAN_NAMES.get(system.architecture, system.architecture)
        try:
            for source in self._sources(definition):
                try:
                    known.append(
                        self._repositories.read(source, architecture=architecture, distribution=system.distribution)
                    )
                except CoppiceError as problem:
                    errors.append(problem)
        except CoppiceError as problem:
            return None, (problem,)
        installed = tuple(packages)
        if not errors and not are_covered(installed, known):
            errors.append(
                StateError(
                    f"the repositories of {definition.name} do not have most of its packages",
                    resolution="Look at `factory.mirror`: it is that of another release or distribution.",
                )
            )
        # Where no repository was read, that there are no updates is not known.
        return find_updates(installed, known) if known else None, tuple(errors)

    def _sources(self, definition: Definition) -> tuple[Source, ...]:
        suite = find_suite(definition.suite, definition.operating_system.architecture)
        return tuple(parse_source(line) for line in sources(suite, self._settings.factory.mirror))

    def _one(self, version: ApplianceVersion, *, waits: bool) -> Appraisal:
        if isinstance(version.image, ReferencedImage) or (version.provenance is None and version.evidence is None):
            return Appraisal(version=version, decision=FOREIGN)
        try:
            record = record_of(version)
            definition = self._definition(record)
            notes = read_notes(factory_root(self._settings), version.appliance.name)
            parent, digest = self._parent(record, definition)
        except CoppiceError as problem:
            return _unknown(version, problem)
        updates, errors = self.updates(record.packages, definition)
        evidence = Evidence(
            built_at=record.provenance.started_at,
            policy=definition.rebuild,
            updates=updates,
            unknown=tuple(problem.message for problem in errors),
            changed_keys=changed_keys(record.definition, definition),
            definition=definition.digest(),
            parent=parent,
            parent_digest=digest,
            expires=version.expires,
            validity_days=definition.validity_days,
            discontinued_on=version.appliance.discontinued_on,
            end_of_life=definition.end_of_life,
            failed=notes.failed,
            tried_at=notes.tried_at,
            tried_state=notes.tried_state,
        )
        return Appraisal(
            version=version,
            decision=decide(evidence, self._clock.now(), waits=waits),
            record=record,
            definition=definition,
            evidence=evidence,
            errors=errors,
        )

    def _definition(self, record: BuildResult) -> Definition:
        try:
            return self._find(reference_of(record.definition))
        except NotFoundError as problem:
            raise NotFoundError(
                f"its definition {reference_of(record.definition)} is not here any more",
                details=problem.message,
                resolution="Put it back, or discontinue the appliance.",
            ) from problem

    def _parent(self, record: BuildResult, definition: Definition) -> tuple[str, str]:
        """Return how what it is built upon changed, in a sentence, and what that is now."""
        if definition.parent is None:
            return "", ""
        try:
            kept = find_kept_build(self._find(definition.parent), settings=self._settings, find=self._find)
        except (NotFoundError, DefinitionError, BuildError):
            # Whatever is wrong there is told when it is built.
            return "", ""
        lineage = record.provenance.lineage
        if kept is None or not lineage:
            return "", ""
        digest = str(kept.images[0].image.checksum)
        if digest == lineage[0].image_digest:
            return "", digest
        return f"{definition.parent}, which it is built upon, was built anew", digest


def record_of(version: ApplianceVersion) -> BuildResult:
    """Return the record of the build that ``version`` is.

    Raises:
        NotFoundError: It is not kept any more.
        StorageError: It cannot be read.
    """
    places = [version.evidence, None if version.provenance is None else Path(version.provenance).parent]
    for place in places:
        if place is None:
            continue
        try:
            found = load_build_result(place)
        except NotFoundError:
            continue
        # A later build of the same definition may have taken the place of the one that was published.
        if any(each.image.checksum.matches(version.image.checksum) for each in found.images):
            return found
    raise NotFoundError(
        f"the record of the build of {version.appliance.name} {version.version} is not kept any more",
        resolution="Build it anew and add it: what is in the version that is published cannot be told.",
    )


def reference_of(definition: Definition) -> str:
    """Return what a definition, or the variant of one, is called by."""
    if not definition.variant:
        return definition.name
    return f"{definition.name.removesuffix(f'-{definition.variant}')}@{definition.variant}"


def changed_keys(before: Definition, now: Definition) -> tuple[str, ...]:
    """Return which parts of a definition say something else; where it lies and what it is called does not count."""
    one, other = definition_document(before), definition_document(now)
    return tuple(
        key.replace("_", " ")
        for key in sorted(one.keys() | other.keys())
        if key not in _NOT_COMPARED and one.get(key) != other.get(key)
    )


def _unknown(version: ApplianceVersion, problem: CoppiceError) -> Appraisal:
    discontinued = version.appliance.discontinued_on
    if discontinued is not None:
        why = f"it is discontinued on {discontinued:%Y-%m-%d}, and takes no new versions"
        return Appraisal(version=version, decision=Decision(choice=Choice.NEVER, triggers=(), reasons=(why,)))
    decision = Decision(choice=Choice.UNKNOWN, triggers=(), reasons=(problem.message,))
    return Appraisal(version=version, decision=decision, errors=(problem,))
