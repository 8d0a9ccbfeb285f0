# SPDX-License-Identifier: Apache-2.0
"""What a front-end keeps: users, groups, datastores, images, VM templates and machines, and their XML."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from coppice.testing.opennebula.template import Template

if TYPE_CHECKING:
    from pathlib import Path

ADMINISTRATORS = 0
"""Identifier of the group that may do everything, and of the user `oneadmin`."""


class State(IntEnum):
    """Of an image."""

    INIT = 0
    READY = 1
    USED = 2
    DISABLED = 3
    LOCKED = 4
    ERROR = 5
    CLONE = 6
    DELETE = 7
    USED_PERS = 8
    LOCKED_USED = 9
    LOCKED_USED_PERS = 10


class MachineState(IntEnum):
    """Of a virtual machine, as far as the simulator knows them."""

    ACTIVE = 3
    DONE = 6


class Right(IntEnum):
    """What one may do with an object; the numbers are places in `Owned.permissions`."""

    USE = 0
    MANAGE = 1
    ADMIN = 2


@dataclass(slots=True, kw_only=True)
class Group:
    """A group of users."""

    identifier: int
    name: str
    template: Template = field(default_factory=Template)

    def xml(self, members: list[int]) -> str:
        """Return it as the pool has it, its quotas included."""
        users = "".join(f"<ID>{each}</ID>" for each in members)
        return (
            f"<GROUP><ID>{self.identifier}</ID><NAME>{escape(self.name)}</NAME>{self.template.xml()}"
            f"<USERS>{users}</USERS><ADMINS></ADMINS></GROUP>"
        )


@dataclass(slots=True, kw_only=True)
class User:
    """Who may ask.

    Attributes:
        identifier: Its number.
        name: The first part of a session.
        password: The second part.
        group: Identifier of the primary group.
        image_quota: How many images it may have in a datastore, by the datastore's identifier.
        may_create: Whether it may create images and templates.
    """

    identifier: int
    name: str
    password: str
    group: int
    image_quota: dict[int, int] = field(default_factory=dict)
    may_create: bool = True

    @property
    def is_administrator(self) -> bool:
        """Whether nothing is forbidden to it."""
        return ADMINISTRATORS in {self.identifier, self.group}


@dataclass(slots=True, kw_only=True)
class Owned:
    """An object with an owner.

    Attributes:
        identifier: Its number within its pool.
        owner: Identifier of its user.
        group: Identifier of its group.
        name: Its name; unique for an owner.
        permissions: Use, manage, administer for the owner, its group and all others: nine of 0 and 1.
        template: Its attributes.
        registered: When it was made, in seconds since 1970.
    """

    identifier: int
    owner: int
    group: int
    name: str
    registered: int
    permissions: list[int] = field(default_factory=lambda: [1, 1, 0, 0, 0, 0, 0, 0, 0])
    template: Template = field(default_factory=Template)

    def allows(self, user: User, right: Right) -> bool:
        """Tell whether ``user`` may."""
        if user.is_administrator:
            return True
        own = self.permissions[right] if user.identifier == self.owner else 0
        group = self.permissions[3 + right] if user.group == self.group else 0
        return bool(own or group or self.permissions[6 + right])

    def head(self, names: Names) -> str:
        """Return the elements that every such object begins with."""
        return (
            f"<ID>{self.identifier}</ID><UID>{self.owner}</UID><GID>{self.group}</GID>"
            f"<UNAME>{escape(names.user(self.owner))}</UNAME><GNAME>{escape(names.group(self.group))}</GNAME>"
            f"<NAME>{escape(self.name)}</NAME>{self.permissions_xml()}"
        )

    def permissions_xml(self) -> str:
        """Return who may do what."""
        labels = [f"{who}_{what}" for who in ("OWNER", "GROUP", "OTHER") for what in "UMA"]
        inner = "".join(f"<{label}>{value}</{label}>" for label, value in zip(labels, self.permissions, strict=True))
        return f"<PERMISSIONS>{inner}</PERMISSIONS>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Names of users, groups and datastores by their identifiers."""

    users: dict[int, str]
    groups: dict[int, str]
    datastores: dict[int, str]

    def user(self, identifier: int) -> str:
        """Return a user's name."""
        return self.users.get(identifier, str(identifier))

    def group(self, identifier: int) -> str:
        """Return a group's name."""
        return self.groups.get(identifier, str(identifier))

    def datastore(self, identifier: int) -> str:
        """Return a datastore's name."""
        return self.datastores.get(identifier, str(identifier))


@dataclass(slots=True, kw_only=True)
class Datastore(Owned):
    """Where images lie.

    Attributes:
        kind: 0 for images, 1 for running machines, 2 for files.
        base: Its directory, as the server writes it.
        folder: The same, as a path.
        driver: ``fs``, or ``dummy``, which copies nothing; ``-`` where there is none.
        free_mib: What is left; None: what the recordings have.
        images: Which lie here.
        capacity: Total, free and used MiB as they are shown.
    """

    kind: int
    base: str
    folder: Path
    driver: str
    images: list[int] = field(default_factory=list)
    capacity: tuple[int, int, int] = (258020, 55990, 202030)

    def xml(self, names: Names) -> str:
        """Return it as the pool has it."""
        images = "".join(f"<ID>{each}</ID>" for each in self.images)
        total, free, used = self.capacity
        return (
            f"<DATASTORE>{self.head(names)}<DS_MAD><![CDATA[{self.driver}]]></DS_MAD>"
            f"<TM_MAD><![CDATA[local]]></TM_MAD><BASE_PATH><![CDATA[{self.base}]]></BASE_PATH>"
            f"<TYPE>{self.kind}</TYPE><DISK_TYPE>0</DISK_TYPE><STATE>0</STATE><CLUSTERS><ID>0</ID></CLUSTERS>"
            f"<TOTAL_MB>{total}</TOTAL_MB><FREE_MB>{free}</FREE_MB><USED_MB>{used}</USED_MB>"
            f"<IMAGES>{images}</IMAGES>{self.template.xml()}</DATASTORE>"
        )

    def folders(self, name: str) -> list[str]:
        """Return the directories that ``SAFE_DIRS`` or ``RESTRICTED_DIRS`` name."""
        return self.template.first(name).split()


@dataclass(slots=True, kw_only=True)
class Image(Owned):
    """An image.

    Attributes:
        path: Where it came from.
        source: The file in its datastore; empty until it was copied.
        written: The file that a copy began to write, whatever became of it.
        format: What the file is; empty until it was copied.
        size_mib: Of the disk.
        state: Its state.
        state_before: The last state that was not LOCKED.
        datastore: Where it lies.
        persistent: Whether a machine writes into it.
        machines: Which use it.
        orphaned: True when the server was stopped while it was copied: nobody ends what is going on.
        checksums: What the datastore compares, by algorithm.
    """

    datastore: int
    path: str
    size_mib: int
    source: str = ""
    written: Path | None = None
    format: str = ""
    state: State = State.LOCKED
    state_before: State = State.INIT
    persistent: bool = False
    machines: list[int] = field(default_factory=list)
    orphaned: bool = False
    checksums: dict[str, str] = field(default_factory=dict)
    kind: int = 0

    def enter(self, state: State) -> None:
        """Change the state, and what the server remembers of it."""
        self.state = state
        if state is not State.LOCKED:
            self.state_before = state

    def xml(self, names: Names) -> str:
        """Return it as ``one.image.info`` has it."""
        machines = "".join(f"<ID>{each}</ID>" for each in self.machines)
        return (
            f"<IMAGE>{self.head(names)}<TYPE>{self.kind}</TYPE><DISK_TYPE>0</DISK_TYPE>"
            f"<PERSISTENT>{int(self.persistent)}</PERSISTENT><REGTIME>{self.registered}</REGTIME>"
            f"<MODTIME>{self.registered}</MODTIME><SOURCE><![CDATA[{self.source}]]></SOURCE>"
            f"<PATH><![CDATA[{self.path}]]></PATH><FORMAT><![CDATA[{self.format}]]></FORMAT><FS><![CDATA[]]></FS>"
            f"<SIZE>{self.size_mib}</SIZE><STATE>{int(self.state)}</STATE>"
            f"<PREV_STATE>{int(self.state_before)}</PREV_STATE><RUNNING_VMS>{len(self.machines)}</RUNNING_VMS>"
            "<CLONING_OPS>0</CLONING_OPS><CLONING_ID>-1</CLONING_ID><TARGET_SNAPSHOT>-1</TARGET_SNAPSHOT>"
            f"<DATASTORE_ID>{self.datastore}</DATASTORE_ID>"
            f"<DATASTORE>{escape(names.datastore(self.datastore))}</DATASTORE><VMS>{machines}</VMS><CLONES></CLONES>"
            f"<APP_CLONES></APP_CLONES>{self.template.xml()}<SNAPSHOTS>"
            "<ALLOW_ORPHANS><![CDATA[NO]]></ALLOW_ORPHANS><CURRENT_BASE><![CDATA[-1]]></CURRENT_BASE>"
            "<NEXT_SNAPSHOT><![CDATA[0]]></NEXT_SNAPSHOT></SNAPSHOTS><BACKUP_INCREMENTS></BACKUP_INCREMENTS>"
            "<BACKUP_DISK_IDS></BACKUP_DISK_IDS></IMAGE>"
        )


@dataclass(slots=True, kw_only=True)
class VmTemplate(Owned):
    """What machines are made from."""

    def xml(self, names: Names) -> str:
        """Return it as ``one.template.info`` has it."""
        return f"<VMTEMPLATE>{self.head(names)}<REGTIME>{self.registered}</REGTIME>{self.template.xml()}</VMTEMPLATE>"


@dataclass(slots=True, kw_only=True)
class Machine(Owned):
    """A virtual machine, which runs as soon as it is made."""

    images: tuple[int, ...]
    state: MachineState = MachineState.ACTIVE

    def xml(self, names: Names) -> str:
        """Return it, as far as anything here asks; there is no recording of one."""
        running = 3 if self.state is MachineState.ACTIVE else 0
        return (
            f"<VM>{self.head(names)}<LAST_POLL>{self.registered}</LAST_POLL><STATE>{int(self.state)}</STATE>"
            f"<LCM_STATE>{running}</LCM_STATE><RESCHED>0</RESCHED><STIME>{self.registered}</STIME><ETIME>0</ETIME>"
            f"<DEPLOY_ID></DEPLOY_ID>{self.template.xml()}</VM>"
        )
