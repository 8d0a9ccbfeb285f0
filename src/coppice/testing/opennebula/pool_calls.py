# SPDX-License-Identifier: Apache-2.0
"""``one.*pool.info``: whose objects, which of them, and how they are written: the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from coppice.testing.opennebula.objects import MachineState, Owned, Right
from coppice.testing.opennebula.refusal import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coppice.testing.opennebula.objects import User
    from coppice.testing.opennebula.world import World

Kind = TypeVar("Kind", bound=Owned)

_OF_GROUP, _OWN, _ALL, _OWN_AND_GROUP = -4, -3, -2, -1
_ANY_STATE, _NOT_DONE = -2, -1
_QUOTAS = (
    "<DATASTORE_QUOTA></DATASTORE_QUOTA><NETWORK_QUOTA></NETWORK_QUOTA><VM_QUOTA></VM_QUOTA><IMAGE_QUOTA></IMAGE_QUOTA>"
)


def images(world: World, user: User, whose: int, start: int, end: int, _extra: int = -1) -> str:
    """Return the pool of images."""
    with world.lock:
        names = world.names()
        return _pool("IMAGE_POOL", _chosen(world.images, user, whose, start, end), lambda each: each.xml(names))


def templates(world: World, user: User, whose: int, start: int, end: int) -> str:
    """Return the pool of VM templates."""
    with world.lock:
        names = world.names()
        return _pool("VMTEMPLATE_POOL", _chosen(world.templates, user, whose, start, end), lambda each: each.xml(names))


def machines(world: World, user: User, whose: int, start: int, end: int, state: int, _pairs: str = "") -> str:  # noqa: PLR0917 - the call's own parameters
    """Return the pool of machines, of all states (-2), all but those that have ended (-1), or one."""
    with world.lock:
        names = world.names()
        wanted = {
            identifier: machine
            for identifier, machine in world.machines.items()
            if state == _ANY_STATE
            or (state == _NOT_DONE and machine.state is not MachineState.DONE)
            or machine.state == state
        }
        return _pool("VM_POOL", _chosen(wanted, user, whose, start, end), lambda each: each.xml(names))


def datastores(world: World, user: User) -> str:
    """Return the pool of datastores."""
    with world.lock:
        names = world.names()
        chosen = _chosen(world.datastores, user, _ALL, -1, -1)
        return _pool("DATASTORE_POOL", chosen, lambda each: each.xml(names))


def datastore(world: World, user: User, identifier: int, _decrypt: bool = False) -> str:
    """Return one datastore."""
    with world.lock:
        return world.find(world.datastores, "datastore", identifier, user, Right.USE).xml(world.names())


def groups(world: World, _user: User) -> str:
    """Return the pool of groups, each with its quotas beside it."""
    with world.lock:
        parts: list[str] = []
        for identifier in sorted(world.groups, reverse=True):
            members = sorted(each.identifier for each in world.users.values() if each.group == identifier)
            parts.append(world.groups[identifier].xml(members))
            parts.append(f"<QUOTAS><ID>{identifier}</ID>{_QUOTAS}</QUOTAS>")
        return f"<GROUP_POOL>{''.join(parts)}<DEFAULT_GROUP_QUOTAS>{_QUOTAS}</DEFAULT_GROUP_QUOTAS></GROUP_POOL>"


def user_info(world: World, user: User, identifier: int, _decrypt: bool = False) -> str:
    """Return a user, who asks (-1) or another; as short as anything here needs it, and not recorded."""
    with world.lock:
        found = user if identifier == -1 else world.users.get(identifier)
        if found is None:
            raise missing("user", identifier)
        group = world.groups[found.group]
        return (
            f"<USER><ID>{found.identifier}</ID><GID>{found.group}</GID><GROUPS><ID>{found.group}</ID></GROUPS>"
            f"<GNAME>{group.name}</GNAME><NAME>{found.name}</NAME><PASSWORD></PASSWORD>"
            "<AUTH_DRIVER>core</AUTH_DRIVER><ENABLED>1</ENABLED><TEMPLATE></TEMPLATE></USER>"
        )


def _pool(tag: str, chosen: list[Kind], write: Callable[[Kind], str]) -> str:
    return f"<{tag}>{''.join(write(each) for each in chosen)}</{tag}>"


def _chosen(pool: Mapping[int, Kind], user: User, whose: int, start: int, end: int) -> list[Kind]:
    found = [pool[each] for each in sorted(pool, reverse=True) if _is_of(pool[each], user, whose)]
    if end < -1:
        # The page's first place, and its length as a negative number.
        first = max(0, start)
        return found[first : first - end]
    return [each for each in found if each.identifier >= start and (end == -1 or each.identifier <= end)]


def _is_of(each: Owned, user: User, whose: int) -> bool:
    if not each.allows(user, Right.USE):
        return False
    if whose == _OWN:
        return each.owner == user.identifier
    if whose == _OF_GROUP:
        return each.group == user.group
    if whose == _OWN_AND_GROUP:
        return each.owner == user.identifier or each.group == user.group
    return whose in {_ALL, each.owner}
