# SPDX-License-Identifier: Apache-2.0
"""Fetch from a repository by git, with as little of git as that takes.

Each fetch has a bare repository of its own that is thrown away: nothing in it can rot, and no run finds what another
left. Only the commit is fetched, without its history; of its files only those that are asked for, where the server can
part them. There is no checkout: files are read out of git's store by their identifiers. So no hook, no filter, no
attribute and no submodule of the repository means anything here.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from coppice import process
from coppice.atomic import PARTIAL_PREFIX, PARTIAL_SUFFIX, storage_errors
from coppice.definition import git_program
from coppice.definition.git_program import Git, Network, git_environment
from coppice.definition.git_tree import MAX_FILE_BYTES, MAX_TOTAL_BYTES, Entry
from coppice.errors import DefinitionSourceError, ToolFailedError, ToolTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from coppice.definition.git_address import GitAddress

ASK_SECONDS: Final = 60
FETCH_SECONDS: Final = 300
READ_SECONDS: Final = 60
_LISTING_LIMIT_BYTES: Final = 4 * 1024 * 1024
_CUT_SHORT = ("signal 25", "invalid index-pack output", "File size limit")
_KEPT_REF = "refs/coppice/fetched"
_ENTRY = re.compile(r"([0-7]{6}) (?:blob|commit) ([0-9a-f]{40}|[0-9a-f]{64})\t(.+)", re.DOTALL)
_IDENTIFIER = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """What a ref is today.

    Attributes:
        identifier: Of a commit, or of a tag that is an object of its own.
        kind: ``branch``, ``tag`` or ``commit``.
    """

    identifier: str
    kind: str


@contextlib.contextmanager
def fetching(address: GitAddress, directory: Path, network: Network) -> Iterator[Remote]:
    """Yield what fetches from ``address``; its repository is below ``directory``, and goes when the block is left.

    Raises:
        StorageError: The directory cannot be made.
    """
    with storage_errors("making a directory in", directory):
        directory.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f"{PARTIAL_PREFIX}git-", suffix=PARTIAL_SUFFIX, dir=directory))
    try:
        yield Remote(address, place, network)
    finally:
        shutil.rmtree(place, ignore_errors=True)


class Remote:
    """A repository somewhere, and as much of it as was fetched; made by `fetching`.

    Attributes:
        address: Where it is.
    """

    def __init__(self, address: GitAddress, place: Path, network: Network) -> None:
        self.address = address
        home = place / "home"
        home.mkdir()
        self._git = Git(place / "repository.git", git_environment(address.scheme, home, network))
        self._absent: set[str] = set()
        self._commit = ""

    def tip(self) -> Tip:
        """Return what the ref of the address is today.

        Raises:
            DefinitionSourceError: The repository cannot be reached, or has no such ref, or a branch and a tag of that
                name.
        """
        ref = self.address.ref
        if self.address.is_commit:
            return Tip(identifier=ref, kind="commit")
        wanted = {"HEAD": "branch"} if not ref else {f"refs/heads/{ref}": "branch", f"refs/tags/{ref}": "tag"}
        said = self._ask(["ls-remote", "--quiet", "--", self.address.url, *wanted], ASK_SECONDS)
        known = [line.split("\t") for line in said.decode("utf-8", errors="replace").splitlines()]
        found = [
            Tip(identifier=words[0], kind=wanted[words[1]])
            for words in known
            if len(words) == 2 and words[1] in wanted and _IDENTIFIER.fullmatch(words[0])  # noqa: PLR2004 - id and ref
        ]
        if len(found) > 1:
            raise DefinitionSourceError(
                f"{self.address.url} has a branch and a tag named {ref!r}",
                resolution="Name the commit instead.",
                context={"url": self.address.url, "ref": ref},
            )
        if not found:
            raise DefinitionSourceError(
                f"{self.address.url} has no branch or tag {ref!r}" if ref else f"{self.address.url} is empty",
                context={"url": self.address.url, "ref": ref},
            )
        return found[0]

    def fetch(self, tip: Tip) -> str:
        """Fetch a commit, without its history and its files; return its identifier.

        Raises:
            DefinitionSourceError: The server does not have it, or does not give it.
            ToolMissingError: git is not installed.
        """
        kind = ["--object-format=sha256"] if len(tip.identifier) == 64 else []  # noqa: PLR2004 - digits of a sha256
        self._git.run(["init", "--quiet", "--bare", "--template=", *kind, "--", self._git.repository], READ_SECONDS)
        self._fetch([f"{tip.identifier}:{_KEPT_REF}"], b"", "--depth=1")
        self._commit = self._read(["rev-parse", "--verify", "--quiet", f"{_KEPT_REF}^{{commit}}"]).decode().strip()
        return self._commit

    def raw(self, identifier: str, kind: str) -> bytes:
        """Return a commit or tag as it is signed.

        Raises:
            DefinitionSourceError: It is of another kind, or was not fetched.
        """
        return self._read(["cat-file", kind, identifier])

    def entries(self, folder: str) -> tuple[Entry, ...] | None:
        """Return all files below ``folder`` of the commit that was fetched; None: there is no such folder.

        Raises:
            DefinitionSourceError: There are too many.
        """
        where = f"{self._commit}:{folder}"
        try:
            if self._read(["cat-file", "-t", where]).strip() != b"tree":
                return None
        except DefinitionSourceError:
            return None
        written = 0

        def count(piece: str) -> None:
            nonlocal written
            written += len(piece)
            if written > _LISTING_LIMIT_BYTES:
                raise DefinitionSourceError(
                    f"the folder {folder!r} of {self.address.url} has too many files to be one of definitions",
                    resolution="Name a smaller folder behind #REF:",
                )

        listed = self._read(["ls-tree", "-r", "-z", "--full-tree", where], on_output=count)
        missing = self._read(["rev-list", "--objects", "--no-object-names", "--missing=print", where], on_output=count)
        self._absent.update(line[1:] for line in missing.decode().splitlines() if line.startswith("?"))
        return tuple(_entry(line) for line in listed.decode("utf-8", errors="replace").split("\0") if line)

    def contents(self, entries: Sequence[Entry]) -> list[bytes]:
        """Return what is in files of the commit; those that were not fetched yet are fetched now, together.

        Raises:
            DefinitionSourceError: One is too large, or cannot be had.
        """
        wanted = list(dict.fromkeys(entry.identifier for entry in entries))
        if not wanted:
            return []
        tell = "".join(f"{each}\n" for each in wanted).encode()
        absent = [each for each in wanted if each in self._absent]
        if absent:
            self._fetch([], "".join(f"{each}\n" for each in absent).encode(), "--stdin")
            self._absent.difference_update(absent)
        sizes = self._sizes(tell, len(wanted))
        names = {entry.identifier: entry.path for entry in entries}
        for identifier, size in zip(wanted, sizes, strict=True):
            if size > MAX_FILE_BYTES:
                raise DefinitionSourceError(f"{names[identifier][:200]} is larger than {MAX_FILE_BYTES} bytes")
        if sum(sizes) > MAX_TOTAL_BYTES:
            raise DefinitionSourceError(f"the definitions have more than {MAX_TOTAL_BYTES} bytes")
        batch = self._read(["cat-file", "--batch"], input_bytes=tell, capture_bytes=2 * MAX_TOTAL_BYTES)
        found = dict(zip(wanted, _parted(batch, sizes), strict=True))
        return [found[entry.identifier] for entry in entries]

    def _sizes(self, tell: bytes, count: int) -> list[int]:
        said = self._read(["cat-file", "--batch-check=%(objecttype) %(objectsize)"], input_bytes=tell)
        lines = [line.split(" ") for line in said.decode().splitlines()]
        if len(lines) != count or any(words[0] != "blob" or not words[1].isdecimal() for words in lines):
            raise DefinitionSourceError(f"{self.address.url} did not give all files of the commit")
        return [int(words[1]) for words in lines]

    def _fetch(self, refs: Sequence[str], tell: bytes, *options: str) -> None:
        url = self.address.url
        remote = {"remote.origin.url": url, "remote.origin.promisor": "true"}
        remote["remote.origin.partialclonefilter"] = "blob:none"
        argv = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", *options]
        argv += ["--recurse-submodules=no", "--filter=blob:none"]
        # What comes from the address is in the configuration alone, and a ref is an identifier: nothing is an option.
        self._ask([*argv, "origin", *refs], FETCH_SECONDS, configuration=remote, tell=tell)

    def _ask(
        self,
        arguments: Sequence[str],
        seconds: float,
        configuration: Mapping[str, str] | None = None,
        tell: bytes = b"",
    ) -> bytes:
        try:
            return self._git.run(arguments, seconds, configuration=configuration, input_bytes=tell)
        except ToolTimeoutError as problem:
            raise DefinitionSourceError(
                f"{self.address.url} did not give what was asked for within {seconds:.0f} s",
                details=problem.details,
                context={"url": self.address.url},
            ) from problem
        except ToolFailedError as problem:
            self._refused(problem)

    def _read(
        self,
        arguments: Sequence[str],
        *,
        input_bytes: bytes = b"",
        on_output: Callable[[str], None] | None = None,
        capture_bytes: int = process.CAPTURE_LIMIT_BYTES,
    ) -> bytes:
        """Run git without any transport: what is not there is an error, and nothing is fetched behind one's back."""
        try:
            return self._git.run(
                arguments,
                READ_SECONDS,
                input_bytes=input_bytes,
                on_output=on_output,
                capture_bytes=capture_bytes,
                is_offline=True,
            )
        except (ToolFailedError, ToolTimeoutError) as problem:
            raise DefinitionSourceError(
                f"what {self.address.url} gave cannot be read",
                details=problem.details,
                context={"url": self.address.url},
            ) from problem

    def _refused(self, problem: ToolFailedError) -> NoReturn:
        said = problem.details or ""
        resolution = "Check the address by hand: git ls-remote URL."
        if any(each in said for each in _CUT_SHORT):
            limit = git_program.FETCH_LIMIT_BYTES // 1024**2
            resolution = f"What it gives is damaged, or more than the {limit} MiB that are fetched from a repository."
        elif "could not read Username" in said or "Authentication failed" in said or "terminal prompts" in said:
            resolution = "No password is asked for or sent: use git+ssh:// with a key that the agent has."
        elif "Host key verification failed" in said:
            resolution = "Put the server's key into known_hosts, after comparing its fingerprint."
        elif "not our ref" in said or "unadvertised object" in said:
            resolution = (
                "The server does not have this commit any more, or gives only what a branch or tag names: its history "
                "was changed. `coppice definition update` shows what is there now."
            )
        elif "dubious ownership" in said:
            resolution = "The repository belongs to somebody else on this machine; it is not read."
        raise DefinitionSourceError(
            f"{self.address.url} cannot be fetched from",
            details=_without_arguments(said),
            resolution=resolution,
            context={"url": self.address.url, "ref": self.address.ref},
        ) from problem


def _entry(line: str) -> Entry:
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise DefinitionSourceError(f"a file of the commit has no usable name: {line[:200]!r}")
    return Entry(mode=match[1], identifier=match[2], path=match[3])


def _parted(batch: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    position = 0
    for size in sizes:
        begin = batch.index(b"\n", position) + 1
        yield batch[begin : begin + size]
        position = begin + size + 1


def _without_arguments(said: str) -> str:
    # The command line is long and says nothing to whoever asked for an address.
    return "\n".join(line for line in said.splitlines() if not line.startswith("$ "))
