# SPDX-License-Identifier: Apache-2.0
"""``one.template.*`` and ``one.vm.*``; changes of owners and permissions, which are alike for images and templates."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coppice.testing.opennebula import image_calls
from coppice.testing.opennebula.objects import Machine, MachineState, Owned, Right, VmTemplate
from coppice.testing.opennebula.refusal import Code, Refusal, check_name, missing
from coppice.testing.opennebula.template import Template

if TYPE_CHECKING:
    from coppice.testing.opennebula.objects import Image, User
    from coppice.testing.opennebula.world import World

_ENDING = frozenset({"terminate", "terminate-hard"})


def allocate(world: World, user: User, text: str) -> int:
    """Make a VM template; whether its images are there is asked when a machine is made of it."""
    template = Template.parse(text)
    with world.lock:
        if not user.is_administrator and not user.may_create:
            raise world.forbidden(user, "perform CREATE TEMPLATE")
        name = template.take("NAME")
        check_name(name, Code.INTERNAL)
        taken = world.taken(world.templates, name, user.identifier)
        if taken is not None:
            raise Refusal(Code.INTERNAL, f"NAME is already taken by TEMPLATE {taken}.")
        template.check("Template", Code.INTERNAL)
        made = VmTemplate(
            identifier=world.next_identifier("template"),
            owner=user.identifier,
            group=user.group,
            name=name,
            registered=int(time.time()),
            template=template,
        )
        world.templates[made.identifier] = made
    return made.identifier


def info(world: World, user: User, identifier: int, _extended: bool = False, _decrypt: bool = False) -> str:
    """Return a VM template's XML."""
    with world.lock:
        return world.find(world.templates, "template", identifier, user, Right.USE).xml(world.names())


def update(world: World, user: User, identifier: int, text: str, mode: int) -> int:
    """Replace (0) or merge (1) a VM template's attributes."""
    given = Template.parse(text)
    with world.lock:
        found = world.find(world.templates, "template", identifier, user, Right.MANAGE)
        changed = found.template.merged(given) if mode else given
        changed.check("Template", Code.INTERNAL)
        found.template = changed
    return identifier


def rename(world: World, user: User, identifier: int, name: str) -> int:
    """Give a VM template another name."""
    check_name(name, Code.ACTION)
    with world.lock:
        found = world.find(world.templates, "template", identifier, user, Right.MANAGE)
        taken = world.taken(world.templates, name, found.owner)
        if taken not in {None, identifier}:
            raise Refusal(
                Code.ACTION, f"template cannot be renamed to {name} because it collides with template {taken}"
            )
        found.name = name
    return identifier


def delete(world: World, user: User, identifier: int, with_images: bool = False) -> int:
    """Remove a VM template, and where it is asked for the images that it names; machines go on."""
    with world.lock:
        found = world.find(world.templates, "template", identifier, user, Right.MANAGE)
        images = _images_of(world, found.template) if with_images else ()
        for image in images:
            image_calls.delete(world, user, image.identifier)
        del world.templates[identifier]
    return identifier


def instantiate(
    world: World,
    user: User,
    identifier: int,
    name: str = "",
    _hold: bool = False,
    text: str = "",
    _persistent: bool = False,
) -> int:
    """Make a machine, which runs at once."""
    with world.lock:
        found = world.find(world.templates, "template", identifier, user, Right.USE)
        template = found.template.merged(Template.parse(text)) if text else found.template
        images = _images_of(world, template)
        for image in images:
            if not image.allows(user, Right.USE):
                raise world.forbidden(user, f"perform USE IMAGE [{image.identifier}]")
        return start(world, user, images, name or f"{found.name}-{len(world.machines)}", template)


def start(world: World, user: User, images: tuple[Image, ...], name: str, template: Template) -> int:
    """Let a machine of these images run."""
    made = Machine(
        identifier=world.next_identifier("vm"),
        owner=user.identifier,
        group=user.group,
        name=name,
        registered=int(time.time()),
        template=Template(list(template.entries)),
        images=tuple(image.identifier for image in images),
    )
    for image in images:
        world.use(image, made.identifier)
    world.machines[made.identifier] = made
    return made.identifier


def _images_of(world: World, template: Template) -> tuple[Image, ...]:
    found: list[Image] = []
    for disk in template.all("DISK"):
        if isinstance(disk, str):
            continue
        if disk.get("IMAGE_ID"):
            identifier = int(disk["IMAGE_ID"])
            image = world.images.get(identifier)
            if image is None:
                raise Refusal(Code.ALLOCATE, f"DISK {len(found)}: Image with ID: {identifier} does not exist")
            found.append(image)
        elif disk.get("IMAGE"):
            named = next((each for each in world.images.values() if each.name == disk["IMAGE"]), None)
            if named is None:
                raise Refusal(
                    Code.ALLOCATE, f"DISK {len(found)}: User does not own an image with name: {disk['IMAGE']} ."
                )
            found.append(named)
    return tuple(found)


def vm_info(world: World, user: User, identifier: int, _decrypt: bool = False) -> str:
    """Return a machine's XML."""
    with world.lock:
        return world.find(world.machines, "virtual machine", identifier, user, Right.USE).xml(world.names())


def vm_action(world: World, user: User, action: str, identifier: int) -> int:
    """End a machine; nothing else is simulated."""
    with world.lock:
        machine = world.find(world.machines, "virtual machine", identifier, user, Right.MANAGE)
        if action not in _ENDING or machine.state is MachineState.DONE:
            raise Refusal(Code.ACTION, f"Could not perform action {action} on VM [{identifier}].")
        world.end(machine)
    return identifier


def change_permissions(found: Owned, given: tuple[int, ...]) -> int:
    """Set nine permissions; -1 leaves one as it is."""
    if any(value not in {-1, 0, 1} for value in given):
        raise Refusal(Code.INTERNAL, "New permission values must be -1, 0 or 1")
    found.permissions = [old if new == -1 else new for old, new in zip(found.permissions, given, strict=True)]
    return found.identifier


def change_owner(  # noqa: PLR0917 - the call's own parameters
    world: World, user: User, found: Owned, kind: str, owner: int, group: int
) -> int:
    """Give it to another user or group; -1 leaves either as it is."""
    if owner != -1 and owner not in world.users:
        raise missing("user", owner)
    if group != -1 and group not in world.groups:
        raise missing("group", group)
    if not user.is_administrator and (owner not in {-1, found.owner} or group not in {-1, user.group}):
        raise world.forbidden(user, f"perform ADMIN {kind.upper()} [{found.identifier}]")
    found.owner = found.owner if owner == -1 else owner
    found.group = found.group if group == -1 else group
    return found.identifier
