# SPDX-License-Identifier: Apache-2.0
"""`OpenNebulaSimulator`: the server, its table of calls, and what tests do behind its back."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from coppice.testing.opennebula import image_calls, pool_calls, template_calls, wire
from coppice.testing.opennebula.misbehaviour import Misbehaviour
from coppice.testing.opennebula.objects import Group, Right, State, User
from coppice.testing.opennebula.refusal import ProtocolFault, Refusal
from coppice.testing.opennebula.template import Template
from coppice.testing.opennebula.world import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from coppice.testing.opennebula.faults import Faults
    from coppice.testing.opennebula.objects import Image, VmTemplate

VERSION = "7.0.1"
_REQUEST_LIMIT_BYTES = 16 * 1024 * 1024
_TYPE_NAMES: dict[type, str] = {int: "integer", str: "string", bool: "boolean"}


class OpenNebulaSimulator:
    """A front-end on loopback; read the package's own words for what it is and is not.

    Args:
        root: Where its datastores lie.
        safe_directories: From where images may be taken, separated by blanks; ``/var/tmp`` is a real one's default.
        port: 0: any free one.
    """

    session = "oneadmin:secret"

    def __init__(self, root: Path, *, safe_directories: str = "/var/tmp", port: int = 0) -> None:  # noqa: S108
        self.world = World(root, safe_directories)
        self.calls: list[str] = []
        """Names of all calls that came, in their order."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
                pass

        self._server = _Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def endpoint(self) -> str:
        """Where it listens: what ``endpoint`` of a cloud's settings takes."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/RPC2"

    @property
    def faults(self) -> Faults:
        """What goes wrong."""
        return self.world.faults

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all that is going on."""
        self.world.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # -- what a site's administrator does ---------------------------------------------------------

    def add_user(self, name: str, password: str, *, group: int = 1, may_create: bool = True) -> User:
        """Make a user; the session is ``name:password``."""
        with self.world.lock:
            made = User(
                identifier=max(self.world.users) + 1, name=name, password=password, group=group, may_create=may_create
            )
            self.world.users[made.identifier] = made
            return made

    def add_group(self, name: str) -> Group:
        """Make a group."""
        with self.world.lock:
            made = Group(identifier=max(self.world.groups) + 1, name=name)
            self.world.groups[made.identifier] = made
            return made

    def start_machine(self, image: int) -> int:
        """Let a machine run from an image; return its identifier.

        Raises:
            Refusal: The image is in no state for that.
        """
        with self.world.lock:
            return template_calls.start(
                self.world, self.world.users[0], (self.world.images[image],), f"vm-{image}", Template()
            )

    def end_machine(self, machine: int) -> None:
        """End it."""
        with self.world.lock:
            self.world.end(self.world.machines[machine])

    def crash(self) -> None:
        """Stop and start `oned` while it copies: what is LOCKED now stays so for ever, and its file may stay."""
        with self.world.lock:
            for image in self.world.images.values():
                if image.state in {State.LOCKED, State.LOCKED_USED, State.LOCKED_USED_PERS}:
                    image.orphaned = True

    # -- what tests look at -----------------------------------------------------------------------

    def image(self, identifier: int) -> Image:
        """Return an image as it is kept."""
        with self.world.lock:
            return self.world.images[identifier]

    def images(self) -> list[Image]:
        """Return all images, by their numbers."""
        with self.world.lock:
            return [self.world.images[each] for each in sorted(self.world.images)]

    def templates(self) -> list[VmTemplate]:
        """Return all VM templates, by their numbers."""
        with self.world.lock:
            return [self.world.templates[each] for each in sorted(self.world.templates)]

    def stray_files(self) -> list[Path]:
        """Return the files in datastores that no image accounts for."""
        with self.world.lock:
            known = {image.written for image in self.world.images.values()}
            folders = [each.folder for each in self.world.datastores.values() if each.folder.is_dir()]
            return sorted(path for folder in folders for path in folder.iterdir() if path not in known)

    # -- the server -------------------------------------------------------------------------------

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(min(length, _REQUEST_LIMIT_BYTES))
        try:
            call = wire.read_call(body)
        except ProtocolFault as problem:
            _send(handler, wire.fault(problem.code, problem.text))
            return
        self.calls.append(call.method)
        misbehaviour = Misbehaviour(self.faults.due(call.method), handler, self.world.stopping)
        if misbehaviour.before(call.method):
            return
        answer = self.answer(call)
        if not misbehaviour.after(answer):
            _send(handler, answer)

    def answer(self, call: wire.Call) -> bytes:
        """Return what `oned` would answer."""
        try:
            function, types, required = _call(call.method)
            parameters = _checked(call.parameters, types, required)
            with self.world.lock:
                user = self.world.who(parameters[0])
            return wire.success(function(self.world, user, *parameters[1:]))
        except ProtocolFault as problem:
            return wire.fault(problem.code, problem.text)
        except Refusal as problem:
            return wire.refusal(call.method, problem.code, problem.text, problem.object_id)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def get_request(self) -> tuple[Any, Any]:
        connection, peer = super().get_request()
        connection.settimeout(60)
        return connection, peer

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: clients that leave early are part of the tests."""


def _send(handler: BaseHTTPRequestHandler, answer: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/xml; charset=utf-8")
    handler.send_header("Content-Length", str(len(answer)))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(answer)


def _checked(given: tuple[object, ...], types: tuple[type, ...], required: int) -> tuple[Any, ...]:
    wanted = (str, *types)
    if len(given) < required + 1:
        raise ProtocolFault(wire.NO_TYPE, "Not enough parameters")
    for value, kind in zip(given, wanted, strict=False):
        is_right = type(value) is kind
        if not is_right:
            raise ProtocolFault(wire.NO_TYPE, f"Parameter that is supposed to be {_TYPE_NAMES[kind]} is not")
    # A real one passes over what is one too many: the recordings have such a call.
    return given[: len(wanted)]


def _version(_world: World, _user: User) -> str:
    return VERSION


def _chmod_image(world: World, user: User, identifier: int, *given: int) -> int:
    with world.lock:
        found = world.find(world.images, "image", identifier, user, Right.MANAGE)
        return template_calls.change_permissions(found, given)


def _chown_image(world: World, user: User, identifier: int, owner: int, group: int) -> int:
    with world.lock:
        found = world.find(world.images, "image", identifier, user, Right.MANAGE)
        return template_calls.change_owner(world, user, found, "image", owner, group)


def _chmod_template(world: World, user: User, identifier: int, *given: int) -> int:
    with world.lock:
        found = world.find(world.templates, "template", identifier, user, Right.MANAGE)
        return template_calls.change_permissions(found, given[:9])


def _chown_template(world: World, user: User, identifier: int, owner: int, group: int) -> int:
    with world.lock:
        found = world.find(world.templates, "template", identifier, user, Right.MANAGE)
        return template_calls.change_owner(world, user, found, "template", owner, group)


_NINE = (int,) * 9
CALLS: dict[str, tuple[Callable[..., object], tuple[type, ...], int]] = {
    "one.datastore.info": (pool_calls.datastore, (int, bool), 1),
    "one.datastorepool.info": (pool_calls.datastores, (), 0),
    "one.grouppool.info": (pool_calls.groups, (), 0),
    "one.image.allocate": (image_calls.allocate, (str, int, bool), 2),
    "one.image.chmod": (_chmod_image, (int, *_NINE), 10),
    "one.image.chown": (_chown_image, (int, int, int), 3),
    "one.image.delete": (image_calls.delete, (int, bool), 1),
    "one.image.enable": (image_calls.enable, (int, bool), 2),
    "one.image.info": (image_calls.info, (int, bool), 1),
    "one.image.persistent": (image_calls.persistent, (int, bool), 2),
    "one.image.rename": (image_calls.rename, (int, str), 2),
    "one.image.update": (image_calls.update, (int, str, int), 3),
    "one.imagepool.info": (pool_calls.images, (int, int, int, int), 3),
    "one.system.version": (_version, (), 0),
    "one.template.allocate": (template_calls.allocate, (str,), 1),
    "one.template.chmod": (_chmod_template, (int, *_NINE, bool), 10),
    "one.template.chown": (_chown_template, (int, int, int), 3),
    "one.template.delete": (template_calls.delete, (int, bool), 1),
    "one.template.info": (template_calls.info, (int, bool, bool), 1),
    "one.template.instantiate": (template_calls.instantiate, (int, str, bool, str, bool), 1),
    "one.template.rename": (template_calls.rename, (int, str), 2),
    "one.template.update": (template_calls.update, (int, str, int), 3),
    "one.templatepool.info": (pool_calls.templates, (int, int, int), 3),
    "one.user.info": (pool_calls.user_info, (int, bool), 1),
    "one.vm.action": (template_calls.vm_action, (str, int), 2),
    "one.vm.info": (template_calls.vm_info, (int, bool), 1),
    "one.vmpool.info": (pool_calls.machines, (int, int, int, int, str), 4),
}
"""Method → function, types of its parameters after the session, and how many of them must be there."""


def _call(method: str) -> tuple[Callable[..., object], tuple[type, ...], int]:
    found = CALLS.get(method)
    if found is None:
        raise ProtocolFault(wire.NO_METHOD, f"Method '{method}' not defined")
    return found
