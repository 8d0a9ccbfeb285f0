# SPDX-License-Identifier: Apache-2.0
"""`Plan`: what is to be done in a tree that has the packages already, by what its parent's tree has already. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from coppice.definition.model import DefinedFile, DefinedUser, Provisioner, ProvisionerKind, Services
from coppice.errors import BuildError, DefinitionError
from coppice.factory.provision.commands import command_of
from coppice.factory.provision.templates import content_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.definition.model import Definition

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@\\-]{0,199}")
_MAX_MODE = 0o7777
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done in a tree.

    Attributes:
        users: Made, or changed.
        no_more_sudo: Accounts that may no longer do everything.
        files: Laid in, templates filled.
        provisioners: Run, in this order.
        services: Switched as they say.
        released: Units that the parent switched and that go back to what their package says.
    """

    users: tuple[DefinedUser, ...]
    no_more_sudo: tuple[str, ...]
    files: tuple[DefinedFile, ...]
    provisioners: tuple[Provisioner, ...]
    services: Services
    released: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        switched = self.services != Services() or self.released
        return not (self.users or self.no_more_sudo or self.files or self.provisioners or switched)


def make_plan(definition: Definition, parent: Definition | None) -> Plan:
    """Return what is to be done for ``definition`` in its parent's tree, or in a tree of packages alone.

    Raises:
        DefinitionError: A value in it cannot be what it says.
        BuildError: It asks for what cannot be done in a tree, or takes away what its parent's tree has.
    """
    check_provisioning(definition)
    files = _filled(definition)
    if parent is None:
        return Plan(
            users=definition.users,
            no_more_sudo=(),
            files=files,
            provisioners=definition.provisioners,
            services=definition.services,
            released=(),
        )
    _check_nothing_is_taken_away(definition, parent)
    had = parent.services
    still = _units(definition.services)
    sudoers = {user.name for user in definition.users if user.sudo}
    return Plan(
        users=_without(definition.users, parent.users),
        no_more_sudo=tuple(user.name for user in parent.users if user.sudo and user.name not in sudoers),
        files=_without(files, _filled(parent)),
        provisioners=_not_run(definition, parent),
        services=_changes(definition.services, had),
        released=tuple(unit for unit in _units(had) if unit not in still),
    )


def check_provisioning(definition: Definition) -> None:
    """Refuse what could not be done in a tree.

    Raises:
        DefinitionError: A value in it cannot be what it says.
        BuildError: It asks for a provisioner that does not run in a tree.
    """
    _filled(definition)
    for file in definition.files:
        _check_path(file.path)
        if not 0 <= file.mode <= _MAX_MODE:
            raise DefinitionError(f"the file {file.path} cannot have the mode 0{file.mode:o}")
        for account in (file.owner, file.group):
            _check_account(account)
    for user in definition.users:
        _check_user(user, definition.user)
    for unit in _units(definition.services):
        if not _UNIT.fullmatch(unit):
            raise DefinitionError(f"not the name of a unit of systemd: {unit[:100]!r}")
    names = [provisioner.name for provisioner in definition.provisioners]
    for provisioner in definition.provisioners:
        if names.count(provisioner.name) > 1 or not _NAME.fullmatch(provisioner.name):
            raise DefinitionError(
                f"a provisioner cannot be named {provisioner.name[:100]!r}, or two are",
                resolution="Give each a name of its own, of letters, digits, points, - and _.",
            )
        _check_provisioner(provisioner, definition)


def _check_provisioner(provisioner: Provisioner, definition: Definition) -> None:
    if provisioner.kind is ProvisionerKind.CHEF:
        raise BuildError(
            f"the provisioner {provisioner.name} is of the kind chef, which this builder does not run",
            resolution="Write it for shell, puppet or ansible: no distribution that is built here has Chef packaged.",
        )
    for path in provisioner.files:
        if not path or any(part in {"", ".", ".."} for part in path.split("/")) or "\0" in path:
            raise DefinitionError(f"a path of the provisioner {provisioner.name} leads elsewhere: {path[:100]!r}")
    if provisioner.entry not in provisioner.files:
        raise DefinitionError(
            f"the provisioner {provisioner.name} has no file {provisioner.entry[:100]!r} to begin with",
            resolution="Set its entry to one of the files of its source.",
        )
    if provisioner.timeout_seconds <= 0:
        raise DefinitionError(f"the provisioner {provisioner.name} has no time to run")
    command_of(provisioner, definition, "/")


def _check_user(user: DefinedUser, login: str) -> None:
    for name in (user.name, *user.groups):
        _check_account(name)
    if user.name in {"root", login}:
        raise DefinitionError(
            f"the account {user.name} is not for the definition's users to make",
            resolution="root is there; build.user is made by cloud-init. Choose another name.",
        )
    if any(character in user.comment for character in ":\n\0"):
        raise DefinitionError(f"the comment of the account {user.name} has a colon or a line break")
    for path in (user.shell, *([user.home] if user.home is not None else [])):
        _check_path(path)


def _check_account(name: str) -> None:
    if not _ACCOUNT.fullmatch(name):
        raise DefinitionError(
            f"not the name of an account or group: {name[:100]!r}",
            resolution="Use lower-case letters, digits, - and _, beginning with a letter, at most 32.",
        )


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path.startswith("/") or any(part in {"", ".", ".."} for part in parts[1:]) or set(path) & set(":\n\0"):
        raise DefinitionError(
            f"not a path in the appliance: {path[:200]!r}",
            resolution="Write it whole from /, without . and .., colons and line breaks.",
        )


def _check_nothing_is_taken_away(definition: Definition, parent: Definition) -> None:
    kinds: tuple[tuple[str, Iterable[str], Iterable[str]], ...] = (
        ("package", parent.packages, definition.packages),
        ("file", (file.path for file in parent.files), (file.path for file in definition.files)),
        ("account", (user.name for user in parent.users), (user.name for user in definition.users)),
        ("provisioner", (each.name for each in parent.provisioners), (each.name for each in definition.provisioners)),
    )
    gone = [f"{kind} {name}" for kind, had, has in kinds for name in sorted(set(had) - set(has))]
    if gone:
        raise BuildError(
            f"{definition.name} takes away what its parent {parent.name} has: {', '.join(gone[:5])}",
            details="\n".join(gone),
            resolution="It is built upon its parent's tree, which has it. Have both inherit from a smaller parent.",
        )


def _filled(definition: Definition) -> tuple[DefinedFile, ...]:
    return tuple(
        replace(file, content=content_of(file, definition.variables), is_template=False) for file in definition.files
    )


def _not_run(definition: Definition, parent: Definition) -> tuple[Provisioner, ...]:
    # The same script with other variables is another one.
    done = [(each, dict(parent.variables)) for each in parent.provisioners]
    return tuple(each for each in definition.provisioners if (each, dict(definition.variables)) not in done)


def _without(wanted: tuple[Item, ...], done: tuple[Item, ...]) -> tuple[Item, ...]:
    return tuple(each for each in wanted if each not in done)


def _changes(wanted: Services, had: Services) -> Services:
    return Services(
        enabled=_without(wanted.enabled, had.enabled),
        disabled=_without(wanted.disabled, had.disabled),
        masked=_without(wanted.masked, had.masked),
    )


def _units(services: Services) -> tuple[str, ...]:
    return (*services.enabled, *services.disabled, *services.masked)
