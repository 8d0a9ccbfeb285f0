# SPDX-License-Identifier: Apache-2.0
"""A site as its administrator sees it: a settings file, folders, and the real command line as a process of its own."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.testing.authority import Authority
from coppice.testing.forked import CommandForge
from coppice.testing.images import MIB, raw_disk
from coppice.testing.server import LoopbackServer, serve
from coppice.testing.simulator import Simulator

ENVELOPE = {"command", "version", "status", "data", "errors", "messages"}
SETTINGS = """
state_directory = "{root}/state"

[transfer]
allow_private_addresses = true
{transfer}
[clouds.here]
driver = "directory"
site = "e2e"
path = "{root}/cloud"
{cloud}
"""
# What may differ between two runs that end in the same state: when something happened, and what says so.
# The state of a file (inode, times) differs wherever it lies.
VOLATILE = re.compile(r'"[^"\n]*(?:state[-_]since|fetched_at)":\s*"[^"]*"|"fingerprint": \[[^\]]*\]')
FACTS = (
    "SELECT name, uri, list_identifier FROM subscription ORDER BY name",
    (
        "SELECT current_list.subscription, version, payload_sha512, expires FROM current_list "
        "JOIN archived_list ON archived_list.number = current_list.archived ORDER BY current_list.subscription"
    ),
    "SELECT list_identifier, version, payload_sha512 FROM trusted_version ORDER BY list_identifier",
    "SELECT list_identifier FROM unsubscribed_list ORDER BY list_identifier",
)


class Ended:
    """A command that ended."""

    def __init__(self, argv, returncode, stdout, stderr) -> None:
        self.argv, self.code, self.stdout, self.stderr = argv, returncode, stdout, stderr
        assert "Traceback" not in stdout + stderr, stdout + stderr
        if "--json" in argv and returncode >= 0:
            self.said = json.loads(stdout)
            assert set(self.said) == ENVELOPE
            self.codes = [error["code"] for error in self.said["errors"]]
            assert all(error["message"] for error in self.said["errors"])
            self.data = self.said["data"]

    def __repr__(self) -> str:
        return f"$ {' '.join(self.argv)} -> {self.code}\n{self.stdout}{self.stderr}"


class CommandLine:
    """``coppice`` with one settings file, in a home directory of its own.

    What is started, the service, what another program runs and what has an environment beyond settings are
    ``python -m coppice``. Any other command runs in a process of its own, too, but one that was forked when all was
    loaded: most of a short command's time is its start, and tests of this folder run many hundreds.
    """

    forge = None
    taken = threading.Lock()

    def __init__(self, root, settings) -> None:
        self.root = root
        self.settings = root / "coppice.toml"
        self.home = root / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.settings.write_text(settings)

    def environment(self, extra=None):
        places = {"HOME": str(self.home), "TMPDIR": str(self.home)}
        places |= {f"XDG_{kind}_HOME": str(self.home / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE", "STATE")}
        return {"PATH": os.environ["PATH"], **places, **(extra or {})}

    def argv(self, *arguments):
        return [sys.executable, "-m", "coppice", "--config", str(self.settings), *map(str, arguments)]

    def run(self, *arguments, environ=None, before=()):
        """Run to the end; ``before``: a program that runs it."""
        argv = [*before, *self.argv(*arguments)]
        own = before or "run" in arguments or not all(name.startswith("COPPICE_") for name in environ or ())
        # It runs one command at a time.
        if not own and self.forge is not None and self.taken.acquire(blocking=False):
            try:
                ended = self.forge.run(*argv[3:], environment=self.environment(environ))
            finally:
                self.taken.release()
            return Ended(argv, ended.code, ended.stdout, ended.stderr)
        done = subprocess.run(
            argv,
            env=self.environment(environ),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Ended(argv, done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments, **options):
        """Run with ``--json``; it must end well. Return its data."""
        ended = self.run("--json", *arguments, **options)
        assert ended.code == 0, ended
        assert ended.said["status"] == "success"
        return ended.data

    def start(self, *arguments, environ=None):
        """Start in a process group of its own."""
        return subprocess.Popen(
            self.argv(*arguments),
            env=self.environment(environ),
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )


class Site(CommandLine):
    """A site that follows the list of one publisher, whose server is on loopback."""

    def __init__(self, root, server, *, cloud="", transfer="", title="Debian 12") -> None:
        super().__init__(root, SETTINGS.format(root=root, cloud=cloud, transfer=transfer))
        self.more = (cloud, transfer)
        self.server = server
        self.state, self.cloud = root / "state", root / "cloud"
        self.authority = Authority.create("Example CA")
        self.anchors = self.authority.write_to(root / "anchors")
        self.publisher = Simulator.create(self.authority, uri=server.url("/lists/demo.list"))
        self.publisher.version = "2"
        self.publisher.endorser.write_to(root, "jane")
        self.first = self.publisher.add_image(title=title, data=tiny_qcow2(root, seed=1))
        self.publish()

    def publish(self, message=None):
        """Serve the images and the list."""
        for name, data in self.publisher.files.items():
            self.server.set(f"/lists/images/{name}", serve(data))
        self.server.set("/lists/demo.list", serve(self.publisher.message() if message is None else message))

    def renew(self, image, data, version):
        """List other bytes for an image, as another version."""
        name = f"{image['dc:identifier']}-{version}.qcow2"
        self.publisher.files[name] = data
        image |= {
            "hv:version": version,
            "hv:uri": self.server.url(f"/lists/images/{name}"),
            "hv:size": str(len(data)),
            "sl:checksum:sha512": hashlib.sha512(data).hexdigest(),
        }

    def next_version(self):
        self.publisher.version = str(int(self.publisher.version) + 1)

    def subscribe(self, name="demo", *, uri=None):
        return self.ok(
            *("subscription", "add", name, uri or self.publisher.uri, "--anchors", self.anchors),
            *("--endorser-certificate", self.root / "jane.pem"),
        )

    def sync(self, *arguments, **options):
        return self.run("--json", "sync", *arguments, **options)

    def synced(self):
        """Sync; it must end well."""
        ended = self.sync()
        assert ended.code == 0, ended
        return ended

    def images(self, *, is_at_work=False):
        """Return (title, version) → state, as the command line tells it; of a service at work, once all is ready."""
        for _ in range(20):
            found, images = {}, self.ok("cloud", "images")["images"]
            waiting = [image for image in images if not image["ready"]]
            assert is_at_work or not waiting, waiting
            if waiting:
                time.sleep(0.1)
                continue
            # Where a service is at work, an image may go between the command and this look at its description.
            with suppress(FileNotFoundError):
                for image in images:
                    description = (self.cloud / image["cloud_identifier"] / "image.json").read_text()
                    name = json.loads(description)["metadata"]["title"]
                    found[name, image["marker"]["version"]] = image["marker"]["state"]
                return found
        message = f"images went while they were looked at, or were not ready, again and again: {images}"
        raise AssertionError(message)

    def snapshot(self):
        """Return everything that a refusal must leave alone, to the byte and to the inode."""
        cache = {path: what for path, what in tree(self.state / "cache").items() if not path.startswith("locks")}
        return {"cloud": tree(self.cloud), "cache": cache, "facts": self.facts()}

    def facts(self):
        with closing(sqlite3.connect(f"file:{self.state}/coppice.sqlite?mode=ro", uri=True)) as database:
            return [database.execute(question).fetchall() for question in FACTS]

    def essence(self):
        """Return what two runs that end in the same state have in common."""
        return {
            "cloud": contents(self.cloud, self.root),
            "cache": contents(self.state / "cache", self.root),
            "conversion": contents(self.state / "conversion", self.root),
            "facts": self.facts(),
        }

    def leftovers(self):
        """Return what was left half-made."""
        return [path for path in self.root.rglob("*.partial") if path.exists() or path.is_symlink()]

    def copy_to(self, root):
        """Return a site like this one in another place; the server is the same."""
        root.parent.mkdir(parents=True, exist_ok=True)
        # Hard links between the stores and the cloud stay what they are.
        subprocess.run(["cp", "-a", self.root, root], check=True, timeout=60)
        twin = object.__new__(Site)
        twin.__dict__.update(self.__dict__)
        CommandLine.__init__(twin, root, SETTINGS.format(root=root, cloud=self.more[0], transfer=self.more[1]))
        twin.state, twin.cloud = root / "state", root / "cloud"
        images = copy.deepcopy(self.publisher.images)
        twin.publisher = replace(self.publisher, images=images, files=dict(self.publisher.files))
        twin.first = images[0]
        return twin


def tree(root):
    """Return path → everything about it, so that even a rewrite with the same bytes shows."""
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        if stat.S_ISREG(about.st_mode):
            what = hashlib.sha512(path.read_bytes()).hexdigest()
        else:
            what = path.readlink() if path.is_symlink() else "directory"
        found[str(path.relative_to(root))] = (about.st_mode, about.st_ino, about.st_mtime_ns, what)
    return found


def contents(root, top):
    """Return path → what is there, without what tells only when it came."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            data = path.read_bytes()
            if path.suffix == ".json":
                data = VOLATILE.sub("", data.decode().replace(str(top), "TOP")).encode()
            found[name] = hashlib.sha512(data).hexdigest()
    return found


def tiny_qcow2(directory, *, size_bytes=2 * MIB, seed=1, full=False):
    """Return a real qcow2 image of a small disk; ``full``: all of it is noise, which takes its place everywhere."""
    raw, made = directory / f"seed-{seed}.raw", directory / f"seed-{seed}.qcow2"
    raw.write_bytes(random.Random(seed).randbytes(size_bytes) if full else raw_disk(size_bytes, seed=seed))  # noqa: S311 - content for tests
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(made)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    data = made.read_bytes()
    raw.unlink()
    made.unlink()
    return data


def wait_until(what, seconds=30.0):
    """Wait until ``what()`` is true; it must become so."""
    deadline = time.monotonic() + seconds
    while not (seen := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return seen


@contextmanager
def running(child):
    """Have ``child`` and all of its group gone when the block ends."""
    try:
        yield child
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate(timeout=30)


class Kit:
    """What tests of this folder make their worlds of."""

    CommandLine = CommandLine
    Ended = Ended
    Site = Site
    running = staticmethod(running)
    tiny_qcow2 = staticmethod(tiny_qcow2)
    tree = staticmethod(tree)
    wait_until = staticmethod(wait_until)


@pytest.fixture(scope="session")
def forge(tmp_path_factory):
    with CommandForge(tmp_path_factory.mktemp("forge")) as started:
        yield started


@pytest.fixture(scope="session")
def kit(forge):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CommandLine, "forge", forge)
        yield Kit


@pytest.fixture
def server():
    with LoopbackServer() as started:
        yield started


@pytest.fixture(scope="session")
def template(kit, tmp_path_factory):
    with LoopbackServer() as server:
        made = Site(tmp_path_factory.mktemp("template") / "site", server)
        made.subscribe()
        made.synced()
        yield made


@pytest.fixture
def site(template, tmp_path):
    """Return a site that is subscribed and has version 1 of one image."""
    made = template.copy_to(tmp_path / "site")
    made.publish()
    return made


@pytest.fixture(scope="module")
def shared_server():
    with LoopbackServer() as started:
        yield started


@pytest.fixture(scope="session")
def checkout():
    return Path(__file__).parents[2]
