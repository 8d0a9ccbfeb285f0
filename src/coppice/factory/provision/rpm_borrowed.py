# SPDX-License-Identifier: Apache-2.0
"""RPM packages that provisioners need, and that are gone afterwards: exactly those that were not there before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.errors import ProvisionError, ToolFailedError, ToolTimeoutError
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from coppice.factory.provision.cage import TreeCage

_SECONDS = 1800.0
_QUERY = "%{name}-%{version}-%{release}.%{arch}\\n"
_KEYS = "gpg-pubkey-"


@dataclass(frozen=True, slots=True, kw_only=True)
class RpmBorrowing:
    """Packages that were installed for provisioners.

    Attributes:
        cage: The tree.
        dnf: dnf of this machine, with all that it needs to work on the tree.
        added: Every package that was not there before, and that does not stay.
        accounts: Every account that these made as they were installed.
        groups: Likewise.
    """

    cage: TreeCage
    dnf: tuple[str | Path, ...]
    added: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def borrowed(self, temporary: Collection[str], staying: Collection[str]) -> RpmBorrowing:
        """Install what is missing of both, and return what has to be given back.

        Raises:
            ProvisionError: It could not be installed.
        """
        if staying:
            self._run(*self.dnf, "install", *sorted(staying))
        if not temporary:
            return self
        before, accounts, groups = self._installed(), self._names("passwd"), self._names("group")
        self._run(*self.dnf, "install", *sorted(temporary))
        return replace(
            self,
            added=self._installed() - before,
            accounts=self._names("passwd") - accounts,
            groups=self._names("group") - groups,
        )

    def give_back(self, own_accounts: Collection[str] = ()) -> None:
        """Remove what was added.

        Args:
            own_accounts: Accounts and groups that the definition wants, whoever made them.

        Raises:
            ProvisionError: It could not be removed: something else needs it by now.
        """
        going = sorted(self.added & self._installed()) if self.added else []
        if not going:
            return
        try:
            self._run("rpm", f"--root={self.cage.root}", "--erase", *going)
        except ProvisionError as problem:
            raise ProvisionError(
                "what the provisioners needed cannot be removed again",
                details=problem.details,
                resolution="Set stays = true for the provisioner, or add these packages to build.packages.",
            ) from problem
        for name in sorted((self.accounts & self._names("passwd")) - set(own_accounts)):
            self.cage.ask("userdel", "--", name)
        for name in sorted((self.groups & self._names("group")) - set(own_accounts)):
            self.cage.ask("groupdel", "--", name)

    def _names(self, database: str) -> frozenset[str]:
        said = self.cage.ask("getent", database).text()
        return frozenset(line.partition(":")[0] for line in said.splitlines())

    def _installed(self) -> frozenset[str]:
        said = self._run("rpm", f"--root={self.cage.root}", "--query", "--all", f"--queryformat={_QUERY}", told=False)
        return frozenset(name for name in said.split() if not name.startswith(_KEYS))

    def _run(self, *words: str | Path, told: bool = True) -> str:
        try:
            return run(
                words,
                timeout_seconds=_SECONDS,
                env={"LANG": "C.UTF-8", "SOURCE_DATE_EPOCH": str(self.cage.epoch)},
                on_output=self.cage.tell if told else None,
            ).text()
        except (ToolFailedError, ToolTimeoutError) as problem:
            raise ProvisionError(
                f"the packages for the provisioners: {problem.message}",
                details=problem.details,
                resolution="The lines above say why. `stays = true` leaves them installed.",
            ) from problem
