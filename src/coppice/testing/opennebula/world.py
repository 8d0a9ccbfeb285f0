# SPDX-License-Identifier: Apache-2.0
"""All that a front-end keeps, behind one lock, as a new one has it: two groups, `oneadmin`, three datastores."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from coppice.testing.opennebula.faults import Faults
from coppice.testing.opennebula.objects import (
    ADMINISTRATORS,
    Datastore,
    Group,
    Image,
    Machine,
    MachineState,
    Names,
    Owned,
    Right,
    State,
    User,
    VmTemplate,
)
from coppice.testing.opennebula.refusal import Code, Refusal, missing
from coppice.testing.opennebula.template import Template

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Any_ = TypeVar("Any_", bound=Owned)

KINDS = {Image: "image", VmTemplate: "template", Datastore: "datastore", Machine: "virtual machine"}
"""How `oned` calls each in errors."""


@dataclass(slots=True)
class World:
    """A front-end's memory. Every field is looked at and changed under `lock` alone."""

    root: Path
    safe_directories: str
    faults: Faults = field(default_factory=Faults)
    lock: threading.RLock = field(default_factory=threading.RLock)
    stopping: threading.Event = field(default_factory=threading.Event)
    users: dict[int, User] = field(default_factory=dict)
    groups: dict[int, Group] = field(default_factory=dict)
    datastores: dict[int, Datastore] = field(default_factory=dict)
    images: dict[int, Image] = field(default_factory=dict)
    templates: dict[int, VmTemplate] = field(default_factory=dict)
    machines: dict[int, Machine] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make what a new front-end has."""
        self.groups = {0: Group(identifier=0, name="oneadmin"), 1: Group(identifier=1, name="users")}
        self.groups[1].template.put("SUNSTONE", _VIEWS)
        self.users = {
            0: User(identifier=0, name="oneadmin", password="secret", group=0),  # noqa: S106 - a simulator's
            1: User(identifier=1, name="serveradmin", password="secret", group=0),  # noqa: S106 - a simulator's
        }
        self._add_datastore(0, "system", 1, "-", {**_COMMON, "DISK_TYPE": "FILE", "DS_MIGRATE": "YES", "SHARED": "NO"})
        self._add_datastore(1, "default", 0, "fs", {**_COMMON, **_STORED, "DISK_TYPE": "FILE"})
        self._add_datastore(2, "files", 2, "fs", {**_COMMON, **_STORED})
        self.datastores[0].capacity = (0, 0, 0)

    def next_identifier(self, pool: str) -> int:
        """Return a number that was never used in that pool."""
        self._last[pool] = self._last.get(pool, -1) + 1
        return self._last[pool]

    def add_datastore(self, name: str, *, kind: int = 0, driver: str = "fs") -> Datastore:
        """Make another datastore."""
        with self.lock:
            return self._add_datastore(
                max(self.datastores) + 1, name, kind, driver, {**_COMMON, **_STORED, "DISK_TYPE": "FILE"}
            )

    def _add_datastore(
        self, identifier: int, name: str, kind: int, driver: str, attributes: Mapping[str, str]
    ) -> Datastore:
        template = Template([*attributes.items(), ("SAFE_DIRS", self.safe_directories), ("TYPE", _TYPES[kind])])
        if driver != "-":
            template.put("DS_MAD", driver)
        made = Datastore(
            identifier=identifier,
            owner=0,
            group=0,
            name=name,
            registered=int(time.time()),
            permissions=[1, 1, 0, 1, 0, 0, 0, 0, 0],
            template=template,
            kind=kind,
            base=f"{self.root}/var//datastores/{identifier}",
            folder=self.root / "var" / "datastores" / str(identifier),
            driver=driver,
        )
        self.datastores[identifier] = made
        return made

    def names(self) -> Names:
        """Return what everything is called now."""
        return Names(
            users={each.identifier: each.name for each in self.users.values()},
            groups={each.identifier: each.name for each in self.groups.values()},
            datastores={each.identifier: each.name for each in self.datastores.values()},
        )

    def who(self, session: object) -> User:
        """Return whose session it is.

        Raises:
            Refusal: Nobody's.
        """
        name, _, password = str(session).partition(":")
        for user in self.users.values():
            if user.name == name and user.password == password:
                return user
        raise Refusal(Code.AUTHENTICATION, "User couldn't be authenticated, aborting call.")

    def find(self, pool: dict[int, Any_], kind: str, identifier: int, user: User, right: Right) -> Any_:
        """Return an object with which `user` may do so.

        Raises:
            Refusal: It is not there, or they may not.
        """
        found = pool.get(identifier)
        if found is None:
            raise missing(kind, identifier)
        if not found.allows(user, right):
            raise self.forbidden(user, f"perform {right.name} {kind.upper()} [{identifier}]")
        return found

    def forbidden(self, user: User, what: str) -> Refusal:
        """Return what answers those who may not."""
        return Refusal(Code.AUTHORISATION, f"User [{user.identifier}] : Not authorized to {what}.")

    def taken(self, pool: Mapping[int, Owned], name: str, owner: int) -> int | None:
        """Return which object of that owner has the name."""
        return next((each.identifier for each in pool.values() if each.name == name and each.owner == owner), None)

    def use(self, image: Image, machine: int) -> None:
        """Let a machine use an image.

        Raises:
            Refusal: It is in no state for that.
        """
        if image.state is State.READY or (image.state is State.USED and not image.persistent):
            image.machines.append(machine)
            image.enter(State.USED_PERS if image.persistent else State.USED)
        elif image.state is State.LOCKED:
            image.machines.append(machine)
            image.enter(State.LOCKED_USED_PERS if image.persistent else State.LOCKED_USED)
        elif image.state is State.LOCKED_USED:
            image.machines.append(machine)
        elif image.state in {State.USED_PERS, State.LOCKED_USED_PERS}:
            raise Refusal(
                Code.ALLOCATE,
                f"DISK 0: Cannot acquire image {image.identifier}, it is persistent and already in use",
            )
        else:
            raise Refusal(
                Code.ALLOCATE,
                f"DISK 0: Cannot acquire image {image.identifier}, it is in state: {image.state.name}",
            )

    def end(self, machine: Machine) -> None:
        """End a machine, and free its images."""
        machine.state = MachineState.DONE
        for identifier in machine.images:
            image = self.images.get(identifier)
            if image is not None and machine.identifier in image.machines:
                image.machines = [each for each in image.machines if each != machine.identifier]
                if not image.machines:
                    image.enter(State.READY if image.state in {State.USED, State.USED_PERS} else State.LOCKED)

    def drop(self, image: Image, *, with_file: bool) -> None:
        """Forget an image, and take its file away or leave it."""
        self.images.pop(image.identifier, None)
        store = self.datastores.get(image.datastore)
        if store is not None:
            store.images = [each for each in store.images if each != image.identifier]
        if with_file and image.written is not None:
            with contextlib.suppress(FileNotFoundError):
                image.written.unlink()


def is_administrator_group(group: int) -> bool:
    """Tell whether it is the group that may do everything."""
    return group == ADMINISTRATORS


_VIEWS = {
    "DEFAULT_VIEW": "cloud",
    "GROUP_ADMIN_DEFAULT_VIEW": "groupadmin",
    "GROUP_ADMIN_VIEWS": "groupadmin,cloud",
    "VIEWS": "cloud",
}
_COMMON = {"ALLOW_ORPHANS": "FORMAT", "PERSISTENT_SNAPSHOTS": "YES", "RESTRICTED_DIRS": "/", "TM_MAD": "local"}
_STORED = {"CLONE_TARGET": "SYSTEM", "LN_TARGET": "SYSTEM"}
_TYPES = {0: "IMAGE_DS", 1: "SYSTEM_DS", 2: "FILE_DS"}
