# SPDX-License-Identifier: Apache-2.0
"""Packages that provisioners need, and that are gone afterwards: exactly those that were not there before."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.errors import ProvisionError, ToolFailedError, ToolTimeoutError
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Collection

    from coppice.factory.provision.cage import TreeCage

_SECONDS = 1800.0
_REMOVED = re.compile(r"^(?:Remv|Purg) (\S+)", flags=re.MULTILINE)
_HARD_DEPENDENCIES_ONLY = (
    "-oAPT::AutoRemove::RecommendsImportant=false",
    "-oAPT::AutoRemove::SuggestsImportant=false",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Borrowing:
    """Packages that were installed for provisioners.

    Attributes:
        cage: The tree.
        apt_config: What apt of this machine reads to work on the tree; None: nothing can be installed.
        added: Every package that was not there before.
        accounts: Every account that these made as they were installed.
        groups: Likewise.
        overrides: Paths whose owner or mode they fixed, by which dpkg asks for these accounts.
    """

    cage: TreeCage
    apt_config: str | None
    added: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    overrides: frozenset[str] = frozenset()

    def borrowed(self, temporary: Collection[str], staying: Collection[str]) -> Borrowing:
        """Install what is missing of both, and return what has to be given back.

        Raises:
            ProvisionError: It could not be installed.
        """
        before = self._installed() if temporary or staying else set()
        missing = sorted({*temporary, *staying} - before)
        if not missing:
            return self
        accounts, groups, overrides = self._names("passwd"), self._names("group"), self._overridden()
        self._apt("apt-get", "--yes", "--no-install-recommends", "install", "--", *missing)
        # From here on they are there for others only.
        passing = sorted(set(temporary) - set(staying) - before)
        if passing:
            self._apt("apt-mark", "auto", "--", *passing)
        return replace(
            self,
            added=frozenset(self._installed() - before),
            accounts=frozenset(self._names("passwd") - accounts),
            groups=frozenset(self._names("group") - groups),
            overrides=frozenset(self._overridden() - overrides),
        )

    def give_back(self, own_accounts: Collection[str] = ()) -> None:
        """Remove what was added, but for what something else in the tree needs by now.

        Args:
            own_accounts: Accounts and groups that the definition wants, whoever made them.

        Raises:
            ProvisionError: It could not be removed, or other packages would have gone with it.
        """
        if not self.added:
            return
        options = ("--yes", *_HARD_DEPENDENCIES_ONLY)
        unneeded = _removed(self._apt("apt-get", *options, "--simulate", "autoremove")) & self.added
        if not unneeded:
            return
        words = ("purge", "--", *sorted(unneeded))
        others = _removed(self._apt("apt-get", *options, "--simulate", *words)) - self.added
        if others:
            raise ProvisionError(
                f"what the provisioners needed cannot be removed without {', '.join(sorted(others)[:5])}",
                details="\n".join(sorted(others)),
                resolution="Set stays = true for the provisioner, or add these packages to build.packages.",
            )
        self._apt("apt-get", *options, *words)
        if unneeded == self.added:
            self._forget_accounts(frozenset(own_accounts))

    def _forget_accounts(self, kept: frozenset[str]) -> None:
        # Packages leave the accounts that they made; here, nobody has ever used them. An override that names one which
        # is not there keeps dpkg from doing anything.
        for path in sorted(self.overrides & self._overridden()):
            self.cage.ask("dpkg-statoverride", "--remove", path)
        for name in sorted(self.accounts & self._names("passwd") - kept):
            self.cage.ask("userdel", "--", name)
        for name in sorted(self.groups & self._names("group") - kept):
            self.cage.ask("groupdel", "--", name)

    def _names(self, database: str) -> set[str]:
        return {line.partition(":")[0] for line in self.cage.ask("getent", database).text().splitlines()}

    def _overridden(self) -> set[str]:
        said = self.cage.ask("dpkg-statoverride", "--list", ok=(0, 1)).text()
        # Owner, group, mode, path.
        return {line.split(maxsplit=3)[3] for line in said.splitlines()}

    def _installed(self) -> set[str]:
        said = self.cage.ask("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\\n", ok=(0, 1))
        rows = (line.partition(" ") for line in said.text().splitlines())
        return {name for state, _, name in rows if state == "installed"}

    def _apt(self, program: str, *words: str) -> str:
        if self.apt_config is None:
            raise ProvisionError("there is no package manager here that could install what the provisioners need")
        environment = {"APT_CONFIG": self.apt_config, "DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8"}
        environment |= {"SOURCE_DATE_EPOCH": str(self.cage.epoch)}
        try:
            return run(
                [program, f"-oDPkg::Chroot-Directory={self.cage.root}", *words],
                timeout_seconds=_SECONDS,
                env=environment,
                on_output=self.cage.tell,
            ).text()
        except (ToolFailedError, ToolTimeoutError) as problem:
            raise ProvisionError(
                f"the packages for the provisioners: {problem.message}",
                details=problem.details,
                resolution="The lines above say why. `stays = true` leaves them installed.",
            ) from problem


def _removed(said: str) -> set[str]:
    return {name.partition(":")[0] for name in _REMOVED.findall(said)}
