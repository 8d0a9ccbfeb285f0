# SPDX-License-Identifier: Apache-2.0
"""Make the file tree of an appliance of the RPM family by dnf: from nothing, or as a layer over its parent's tree.

It happens in the same namespaces as every tree; only what installs the packages is another program.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from coppice.atomic import storage_errors
from coppice.errors import BuildError, NoSpaceError
from coppice.factory.bootstrap.processors import BIOS_CORE
from coppice.factory.bootstrap.rpm_inside import RpmPlan
from coppice.factory.bootstrap.rpm_repositories import dnf_configuration, rpm_macros
from coppice.factory.bootstrap.tree import BIOS_MODULES, EFI_MODULES, ROOT_PARTITION, Made, TreeMaker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from coppice.errors import ToolFailedError, ToolTimeoutError
    from coppice.factory.bootstrap.inside import Order
    from coppice.factory.bootstrap.rpm_releases import RpmRelease

_INSIDE = "coppice.factory.bootstrap.rpm_inside"


@dataclass(frozen=True, slots=True, kw_only=True)
class RpmTreeMaker(TreeMaker):
    """Makes trees of one release of the RPM family.

    Attributes:
        release: The release.
        repositories: Pairs of (name, address).
        keys: In ASCII armour: the keys of which one must have signed each package.
        kept: A directory where packages are kept for other builds; None: they are not.
    """

    release: RpmRelease
    repositories: tuple[tuple[str, str], ...]
    keys: str
    kept: Path | None = None
    plans: list[RpmPlan] = field(default_factory=list)

    def make_base(self) -> Made:
        """Make a tree with the base packages, and the boot loader's images.

        Raises:
            BuildError: It could not be made.
        """
        return self._make_by((), self.release.packages, (), lambda: None)

    def make_layer(
        self,
        layers: Sequence[Path],
        packages: Sequence[str],
        provision: tuple[str, ...],
        on_failure: Callable[[], None],
    ) -> Made:
        """Make the layer over ``layers`` in which their packages are brought up to date and ``packages`` are added.

        Args:
            layers: Of the parent's tree, the first first.
            packages: To be installed, where they are not.
            provision: A program that does the rest; none: there is nothing to do.
            on_failure: Called when it failed, before anything else is said of it.

        Raises:
            BuildError: It could not be made.
        """
        return self._make_by(tuple(str(layer) for layer in layers), tuple(packages), provision, on_failure)

    def _make_by(
        self,
        layers: tuple[str, ...],
        packages: tuple[str, ...],
        provision: tuple[str, ...],
        on_failure: Callable[[], None],
    ) -> Made:
        plan = self._plan(packages, provision, is_base=not layers)
        self.plans.append(plan)
        made = self._make(layers, on_failure=on_failure)
        with storage_errors("reading", self.work):
            facts = json.loads((self.work / "repositories.json").read_text(encoding="utf-8"))
        return replace(made, indices={str(name): str(digest) for name, digest in facts.items()})

    def _plan(self, packages: tuple[str, ...], provision: tuple[str, ...], *, is_base: bool) -> RpmPlan:
        place = self.work / "dnf"
        with storage_errors("writing", place):
            for directory in (place, place / "macros", place / "nothing"):
                directory.mkdir(exist_ok=True)
            configuration = place / "dnf.conf"
            # The address of a mirror may hold a password, and others may look into the directories above.
            configuration.touch(mode=0o600)
            configuration.chmod(0o600)
            configuration.write_text(dnf_configuration(self.release, self.repositories), encoding="utf-8")
            (place / "macros" / "macros.coppice").write_text(rpm_macros(self.release), encoding="utf-8")
            (place / "keys.asc").write_text(self.keys, encoding="ascii")
        return RpmPlan(
            configuration=str(configuration),
            macros=str(place / "macros"),
            keys=str(place / "keys.asc"),
            version=self.release.version,
            packages=packages,
            is_base=is_base,
            provision=provision,
            core_images=_core_images(self.release),
            kept=None if self.kept is None else str(self.kept),
            facts=str(self.work / "repositories.json"),
            is_mapped=False,
        )

    def _order(self, layers: tuple[str, ...], options: tuple[str, ...], **facts: Any) -> Order:
        order = TreeMaker._order(self, layers, options, **facts)  # noqa: SLF001 - its own, which slots hide from super()
        path = self.work / "dnf" / "plan.json"
        with storage_errors("writing", path):
            path.write_text(replace(self.plans[-1], is_mapped=order.is_mapped).document(), encoding="utf-8")
        return replace(
            order,
            command=(sys.executable, "-P", "-m", _INSIDE, str(path)),
            arguments=(),
            packages=None,
            lists=None,
        )

    def _failed(self, problem: ToolFailedError | ToolTimeoutError) -> BuildError | NoSpaceError:
        told = TreeMaker._failed(self, problem)  # noqa: SLF001 - likewise
        if isinstance(told, NoSpaceError):
            return told
        lines = (problem.details or "").splitlines()
        said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        return BuildError(
            f"installing the packages of {self.release.distribution} failed: {said[-1][:300]}"
            if said
            else told.message,
            details=told.details,
            resolution="The lines above say why: a package that does not exist or bears no good signature, a mirror "
            "that cannot be reached …",
        )


def _core_images(release: RpmRelease) -> tuple[tuple[str, tuple[str, ...]], ...]:
    prefix = f"(,gpt{ROOT_PARTITION})/boot/grub"
    efi = release.processor.efi_core

    def words(platform: str, output: str, modules: Sequence[str]) -> tuple[str, ...]:
        return ("grub2-mkimage", "-O", platform, "-o", output, "-p", prefix, *modules)

    return (
        (BIOS_CORE, words("i386-pc", BIOS_CORE, BIOS_MODULES)),
        (efi, words(release.processor.efi_platform, efi, EFI_MODULES)),
    )
