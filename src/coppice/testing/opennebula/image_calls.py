# SPDX-License-Identifier: Apache-2.0
"""``one.image.*``: what is checked in which order, and what becomes of an image, as the recordings have it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from coppice.testing.opennebula import store
from coppice.testing.opennebula.objects import Image, Right, State
from coppice.testing.opennebula.refusal import Code, Refusal, check_name, missing
from coppice.testing.opennebula.template import Template

if TYPE_CHECKING:
    from coppice.testing.opennebula.objects import Datastore, User
    from coppice.testing.opennebula.world import World

_IMAGES, _SYSTEM, _FILES = 0, 1, 2
_TYPES = {"OS": 0, "CDROM": 1, "DATABLOCK": 2, "KERNEL": 3, "RAMDISK": 4, "CONTEXT": 5}
_FILE_TYPES = frozenset({3, 4, 5})
_WAIT_SECONDS = 0.01
_IN_USE = frozenset({State.USED, State.USED_PERS, State.LOCKED_USED, State.LOCKED_USED_PERS})
_ALLOCATING = "Error allocating a new image. "


def allocate(world: World, user: User, text: str, datastore: int, skip_capacity_check: bool = False) -> int:
    """Take an image in; it is copied when this has returned."""
    template = Template.parse(text)
    with world.lock:
        place = world.datastores.get(datastore)
    if place is None:
        raise missing("datastore", datastore)
    if place.kind == _SYSTEM:
        raise Refusal(Code.ALLOCATE, "New images can only be allocated in a files or image datastore.")
    # Looked at in the call, before anybody asks whether the user may.
    world.stopping.wait(world.faults.copying.sizing_seconds)
    size = 1024 if place.driver == "dummy" else store.size_mib(template.first("PATH"))
    with world.lock:
        # What a user asks for who is no administrator is not heard.
        is_checked = not (skip_capacity_check and user.is_administrator)
        if is_checked and place.driver == "fs" and size > place.capacity[1]:
            raise Refusal(Code.ACTION, "Not enough space in datastore")
        _authorise(world, user, template, place)
        image = _made(world, user, template, place, size)
        world.images[image.identifier] = image
        place.images.append(image.identifier)
    threading.Thread(target=_copy, args=(world, image, place), daemon=True).start()
    return image.identifier


def _authorise(world: World, user: User, template: Template, place: Datastore) -> None:
    if user.is_administrator:
        return
    if template.first("SOURCE"):
        raise Refusal(
            Code.AUTHORISATION, f"User [{user.identifier}] : Template includes a restricted attribute SOURCE."
        )
    if not user.may_create:
        raise world.forbidden(user, "perform CREATE IMAGE")
    limit = user.image_quota.get(place.identifier)
    has = sum(each.owner == user.identifier and each.datastore == place.identifier for each in world.images.values())
    if limit is not None and has >= limit:
        raise Refusal(
            Code.AUTHORISATION,
            f"user [{user.identifier}] limit of {limit} reached for IMAGES quota in DATASTORE with ID: "
            f"{place.identifier}.",
        )


def _made(world: World, user: User, template: Template, place: Datastore, size: int) -> Image:
    name, kind_name = template.take("NAME"), template.take("TYPE") or "OS"
    persistent = template.take("PERSISTENT").upper() == "YES"
    path = template.take("PATH")
    for attribute in ("SIZE", "SOURCE", "FORMAT", "FS", "DRIVER", "FSTYPE", "TM_MAD"):
        template.drop(attribute)
    kind = _TYPES.get(kind_name.upper())
    if kind is None:
        raise Refusal(Code.ALLOCATE, f"{_ALLOCATING}Unknown type {kind_name}")
    if (place.kind == _FILES) is not (kind in _FILE_TYPES):
        wanted = "KERNEL, RAMDISK and CONTEXT" if place.kind == _FILES else "OS, CDROM and DATABLOCK"
        raise Refusal(Code.ALLOCATE, f"{_ALLOCATING}Only IMAGES of type {wanted} can be in this datastore.")
    check_name(name, Code.ALLOCATE)
    taken = world.taken(world.images, name, user.identifier)
    if taken is not None:
        raise Refusal(Code.ALLOCATE, f"{_ALLOCATING}NAME is already taken by IMAGE {taken}.")
    if not template.first("DEV_PREFIX") and kind not in _FILE_TYPES:
        template.put("DEV_PREFIX", "sd")
    template.check("Image", Code.ALLOCATE)
    return Image(
        identifier=world.next_identifier("image"),
        owner=user.identifier,
        group=user.group,
        name=name,
        registered=int(time.time()),
        template=template,
        datastore=place.identifier,
        path=path,
        size_mib=size,
        persistent=persistent,
        kind=kind,
        checksums={"md5": template.first("MD5"), "sha1": template.first("SHA1")},
    )


def _copy(world: World, image: Image, place: Datastore) -> None:
    copying = world.faults.copying
    until = time.monotonic() + copying.seconds
    while time.monotonic() < until or (copying.held and world.faults.copying is copying):
        if world.stopping.wait(_WAIT_SECONDS):
            return
    try:
        if place.driver == "dummy":
            _finish(world, image, "dummy_path", "dummy_format")
            return
        for stored in store.copy(image.path, place, image.checksums, copying):
            image.written = stored.path
            if stored.format:
                _finish(world, image, f"{place.base}/{stored.path.name}", stored.format)
    except (store.CopyFailed, OSError) as problem:
        _fail(world, image, str(problem))


def _finish(world: World, image: Image, source: str, kind: str) -> None:
    with world.lock:
        if image.orphaned:
            return
        if image.identifier not in world.images:
            # Removed by force while it was copied: the file stays, and nobody knows of it.
            return
        image.source, image.format = source, kind
        image.enter(State.USED if image.machines else State.READY)


def _fail(world: World, image: Image, reason: str) -> None:
    with world.lock:
        if image.orphaned or image.identifier not in world.images:
            return
        at = time.strftime("%a %b %e %H:%M:%S %Y")
        image.template.put("ERROR", f"{at} : Error copying image in the datastore: {reason}")
        image.enter(State.ERROR)


def info(world: World, user: User, identifier: int, _decrypt: bool = False) -> str:
    """Return an image's XML."""
    with world.lock:
        return world.find(world.images, "image", identifier, user, Right.USE).xml(world.names())


def update(world: World, user: User, identifier: int, text: str, mode: int) -> int:
    """Replace (0) or merge (1) an image's attributes."""
    given = Template.parse(text)
    with world.lock:
        image = world.find(world.images, "image", identifier, user, Right.MANAGE)
        changed = image.template.merged(given) if mode else given
        changed.check("Image", Code.INTERNAL)
        image.template = changed
    return identifier


def rename(world: World, user: User, identifier: int, name: str) -> int:
    """Give an image another name."""
    check_name(name, Code.ACTION)
    with world.lock:
        image = world.find(world.images, "image", identifier, user, Right.MANAGE)
        taken = world.taken(world.images, name, image.owner)
        if taken not in {None, identifier}:
            raise Refusal(Code.ACTION, f"image cannot be renamed to {name} because it collides with image {taken}")
        image.name = name
    return identifier


def enable(world: World, user: User, identifier: int, wanted: bool) -> int:
    """Make an image READY or DISABLED; one in ERROR can be either afterwards."""
    with world.lock:
        image = world.find(world.images, "image", identifier, user, Right.MANAGE)
        if image.state not in {State.READY, State.DISABLED, State.ERROR}:
            raise Refusal(
                Code.INTERNAL,
                f"Could not {'enable' if wanted else 'disable'} image: Image cannot be in state {image.state.name}.",
            )
        image.enter(State.READY if wanted else State.DISABLED)
    return identifier


def persistent(world: World, user: User, identifier: int, wanted: bool) -> int:
    """Let machines write into an image, or not."""
    with world.lock:
        image = world.find(world.images, "image", identifier, user, Right.MANAGE)
        if image.machines:
            raise Refusal(Code.INTERNAL, "Could not make image persistent: Image is in use.")
        image.persistent = wanted
    return identifier


def delete(world: World, user: User, identifier: int, force: bool = False) -> int:
    """Remove an image; its file goes after a while, or stays where a copy had not come to its end."""
    with world.lock:
        image = world.find(world.images, "image", identifier, user, Right.MANAGE)
        if image.state in _IN_USE:
            raise Refusal(Code.ACTION, f"Cannot delete image. There are {len(image.machines)} VMs using it.")
        if image.state is State.LOCKED and not force:
            raise Refusal(
                Code.INTERNAL,
                "Image locked, use --force flag to remove the image. Force delete may leave some files on Datastore",
            )
        if not image.source:
            world.drop(image, with_file=False)
            return identifier
        image.enter(State.DELETE)
    seconds = world.faults.copying.deleting_seconds
    if seconds:
        threading.Thread(target=_forget, args=(world, image, seconds), daemon=True).start()
    else:
        _forget(world, image, 0.0)
    return identifier


def _forget(world: World, image: Image, seconds: float) -> None:
    world.stopping.wait(seconds)
    with world.lock:
        world.drop(image, with_file=True)
