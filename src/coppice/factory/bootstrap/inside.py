# SPDX-License-Identifier: Apache-2.0
"""What runs inside of a tree's own namespaces: nothing that it mounts or starts is seen, or outlives it, outside.

`TreeMaker` starts it as ``python -m coppice.factory.bootstrap.inside`` with an `Order` as JSON on standard input. The
tree stands in memory where there is room, a child's as a second layer over its parent's, so that what the child
changed need not be looked for. Packages and their lists come from a cache that is read in place: whatever this run
writes lands beside it, and is brought into it only as whole files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from coppice.atomic import partial_path
from coppice.errors import CoppiceError
from coppice.factory.bootstrap.foreign import make_known
from coppice.factory.bootstrap.twins import find_home, make_twins
from coppice.factory.lock import locked
from coppice.process import run

ARCHIVES = "var/cache/apt/archives"
LISTS = "var/lib/apt/lists"
INDEX = "var/cache/apt/index"
"""Where apt is told to put what it makes of the lists alone."""
SOURCES = "etc/apt/sources.list"
ROOT = "root"
_MOUNT_SECONDS = 60.0
_TAR_SECONDS = 1200.0
_WITH_PASSWORD = re.compile(r"://[^/\s]*@")
_ATTRIBUTES = ("security.capability", "trusted.overlay.opaque", "user.overlay.opaque")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made.

    Attributes:
        space: An existing, empty directory where the tree stands.
        memory_bytes: How much of the memory it may take; 0: it stands on the disk.
        layers: Those of the tree that it is built upon, the first first; none: from nothing.
        command: mmdebstrap and its options, without the target.
        arguments: What it reads: the lines of the package sources.
        output: Where the tar file of the tree, or of what the child changed in it, is written.
        facts: Where the digests of the repositories' indices are written, as JSON.
        packages: A directory where packages are kept for other builds; None: they are not.
        lists: Likewise for the repositories' indices, of these sources alone.
        epoch: Nothing in the tree is younger.
        seconds: For mmdebstrap.
        is_mapped: Whether users in here are those of a namespace, which cannot do all that the machine's own root can.
        emulator: What makes the emulator of the tree's processors known in here; empty: nothing has to.
        twins: What extracts programs that run in place of emulated ones, without the target; empty: none do.
    """

    space: str
    memory_bytes: int
    layers: tuple[str, ...]
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    output: str
    facts: str
    packages: str | None
    lists: str | None
    epoch: int
    seconds: float
    is_mapped: bool
    emulator: str = ""
    twins: tuple[str, ...] = ()

    def document(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self)).encode()


def main() -> int:
    """Carry out the order on standard input; what the programs say goes to standard output as it comes."""
    values = json.loads(sys.stdin.buffer.read())
    for name in ("layers", "command", "arguments", "twins"):
        values[name] = tuple(values.get(name, ()))
    try:
        make(Order(**values))
    except CoppiceError as problem:
        # What failed has been said, but for why it could not even be started.
        print(f"E: {problem.message}", flush=True)  # noqa: T201 - read by the caller
        return 1
    return 0


def make(order: Order) -> None:
    """Make the tree, and leave its tar file and the digests of the indices outside.

    Raises:
        ToolFailedError: A program failed; what it said was told.
        ToolMissingError: A program is not installed.
        StorageError: The disk failed.
    """
    space = Path(order.space)
    if order.emulator:
        make_known(order.emulator)
    if order.memory_bytes:
        options = f"size={order.memory_bytes},nr_inodes=0,mode=0755"
        _mount(["-t", "tmpfs", "-o", options, "coppice", space], space)
    else:
        # mmdebstrap's helpers change to other users, who must be able to reach their own tree.
        space.chmod(0o755)
    sources = "".join(f"{line}\n" for line in order.arguments).encode()
    home = find_home(os.uname().machine)
    if order.twins and home is not None:
        make_twins(order.twins, home, space, sources=sources, seconds=order.seconds, say=_say)
    root = space / ROOT
    root.mkdir(mode=0o755)
    if order.layers:
        _lay(order, space)
    (root / INDEX).mkdir(parents=True, exist_ok=True)
    # What is made of the lists fits none but these: apt looks at their lengths and times.
    index = None if order.lists is None else f"{order.lists}.index"
    caches = [
        _Cache(name=name, kept=Path(kept), inside=root / inside, space=space)
        for name, kept, inside in (
            ("archives", order.packages, ARCHIVES),
            ("lists", order.lists, LISTS),
            ("index", index, INDEX),
        )
        if kept is not None
    ]
    for cache in caches:
        cache.open(is_mapped=order.is_mapped)
    # By the last, kernel packages leave making their initial file system to whoever installs them.
    environment = {"TMPDIR": str(space), "SOURCE_DATE_EPOCH": str(order.epoch), "INITRD": "No"}
    run(
        # Not among its arguments: an address may hold a password, and all can read what a process was called with.
        [*order.command, root, "-"],
        timeout_seconds=order.seconds,
        input_bytes=sources,
        env=environment,
        on_output=_say,
    )
    _tell_indices(root / LISTS, Path(order.facts))
    for cache in caches:
        cache.close()
    # Layers are kept where others may look: a password stays out of them, and each child brings its sources along.
    secret = (SOURCES,) if any(_WITH_PASSWORD.search(line) for line in order.arguments) else ()
    _write(space / "upper" if order.layers else root, Path(order.output), order.epoch, secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cache:
    """A directory of the tree whose content is kept for later builds."""

    name: str
    kept: Path
    inside: Path
    space: Path

    @property
    def _new(self) -> Path:
        return self.space / f"{self.name}.new"

    def open(self, *, is_mapped: bool) -> None:
        """Show what is kept where the tree's package manager looks; nothing of it can be changed there."""
        self.kept.mkdir(parents=True, exist_ok=True)
        self.inside.mkdir(parents=True, exist_ok=True)
        link, work = self.space / f"{self.name}.kept", self.space / f"{self.name}.work"
        for directory in (self._new, work, link):
            directory.mkdir()
        # Bound to a place below, so that no character of its own name has a meaning to mount.
        _mount(["--bind", self.kept, link], self.space)
        _overlay((link.name,), self._new.name, work.name, self.inside, self.space, is_mapped=is_mapped)

    def close(self) -> None:
        """Bring what is new into the cache, each file in one step; take the cache out of the tree."""
        with locked(self.kept.parent / f"{self.kept.name}.lock"):
            gone = self.name == "lists"
            for path in sorted(self._new.iterdir()):
                if path.is_file() and not path.is_symlink() and path.name != "lock":
                    temporary = partial_path(self.kept / path.name)
                    shutil.copyfile(path, temporary)
                    if gone:
                        # The time of an index says what its server is asked for: what is newer than that.
                        shutil.copystat(path, temporary)
                    temporary.replace(self.kept / path.name)
                elif gone and _is_whiteout(path):
                    (self.kept / path.name).unlink(missing_ok=True)
        run(["umount", "--no-mtab", "--lazy", self.inside], timeout_seconds=_MOUNT_SECONDS)


def _is_whiteout(path: Path) -> bool:
    return path.is_char_device() and path.lstat().st_rdev == 0


def _lay(order: Order, space: Path) -> None:
    # The newest first, as overlay wants them.
    names: list[str] = []
    for number, layer in enumerate(order.layers):
        name = f"l{number}"
        (space / name).mkdir()
        names.insert(0, name)
        attributes = [f"--xattrs-include={each}" for each in _ATTRIBUTES]
        # Of its own accord, tar reads a pipe by 10 KiB.
        argv = [
            "tar",
            "--zstd",
            "--record-size=64K",
            "--xattrs",
            *attributes,
            "--numeric-owner",
            "--same-permissions",
            "--same-owner",
        ]
        run([*argv, "-C", space / name, "-xf", layer], timeout_seconds=_TAR_SECONDS, on_output=_say)
    (space / "upper").mkdir()
    (space / "overlay").mkdir()
    shutil.copystat(space / "l0", space / "upper")
    _overlay(tuple(names), "upper", "overlay", space / ROOT, space, is_mapped=order.is_mapped)
    # A tree's resolver may be a link to what its running system has there; mmdebstrap writes this machine's through it.
    resolver = space / ROOT / "etc" / "resolv.conf"
    if resolver.is_symlink():
        target = os.path.normpath(Path("/etc") / resolver.readlink())
        if target.startswith("/run/"):
            (space / ROOT / target.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)


def _overlay(lower: tuple[str, ...], upper: str, work: str, target: Path, space: Path, *, is_mapped: bool) -> None:
    options = [f"lowerdir={':'.join(lower)}", f"upperdir={upper}", f"workdir={work}"]
    # Whatever is changed is wholly in the upper directory.
    options += ["userxattr"] if is_mapped else ["redirect_dir=off", "metacopy=off", "index=off"]
    _mount(["-t", "overlay", "-o", ",".join(options), "coppice", target], space)


def _mount(words: list[str | Path], directory: Path) -> None:
    run(["mount", "--no-mtab", *words], timeout_seconds=_MOUNT_SECONDS, cwd=directory, on_output=_say)


def _write(tree: Path, output: Path, epoch: int, left_out: tuple[str, ...]) -> None:
    argv: list[str | Path] = ["tar", "--format=pax", "--sort=name", "--numeric-owner", "--one-file-system"]
    # Two times of each file that nobody asks for would double the number of headers.
    argv += [f"--mtime=@{epoch}", "--clamp-mtime", "--pax-option=delete=atime,delete=ctime", "--xattrs"]
    argv += [f"--xattrs-include={each}" for each in _ATTRIBUTES]
    # What is below these is the building machine's, or nobody's.
    argv += [f"--exclude=./{each}/*" for each in ("dev", "proc", "sys", "run", "tmp", "var/cache/apt", LISTS)]
    argv += [f"--exclude=./{each}" for each in left_out]
    run([*argv, "-C", tree, "-cf", output, "."], timeout_seconds=_TAR_SECONDS, on_output=_say)


def _tell_indices(lists: Path, facts: Path) -> None:
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(lists.glob("*_*Release"))
        if path.is_file()
    }
    facts.write_text(json.dumps(found) + "\n", encoding="utf-8")


def _say(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
