# SPDX-License-Identifier: Apache-2.0
"""`ProgressFile`: beside a file that is being fetched, what of it is whole and where it came from.

Lines of text, only ever put to its end; a last line without its end was cut off by a kill, and says nothing. What a
process wrote is there after its death, for the machine goes on; after a restart of the machine, which another boot
identifier tells, only what was made durable counts.

    boot IDENTIFIER       first line: the machine's boot
    from {JSON}           where the bytes come from, and what the server called the file's state
    ranges END            from here on stretches count: the file was whole up to END; before, its size alone counts
    whole START END       a stretch was written
    durable START-END …   all stretches that are durable
    anew                  nothing is there any more
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from coppice import atomic
from coppice.cache.stretches import Stretches

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LIMIT_BYTES = 64 * 1024 * 1024
_TIDY_BYTES = 64 * 1024
_NUMBER = r"[0-9]{1,19}"
_WHOLE = re.compile(rf"({_NUMBER}) ({_NUMBER})")
_PAIR = re.compile(rf"({_NUMBER})-({_NUMBER})")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSource:
    """Where bytes came from.

    Attributes:
        uri: The address, without secrets.
        etag: What the server called the file's state.
        last_modified: Likewise.
    """

    uri: str
    etag: str | None = None
    last_modified: str | None = None


@dataclass(slots=True, kw_only=True)
class _Said:
    boot: str = ""
    source: PartialSource | None = None
    ranges: Stretches | None = None
    durable: Stretches | None = None

    def take(self, word: str, rest: str) -> None:
        if word == "boot":
            self.boot = rest
        elif word == "from":
            self.source = PartialSource(**json.loads(rest))
        elif word == "ranges":
            self.ranges = Stretches([(0, int(rest))])
        elif word == "whole" and self.ranges is not None and (pair := _WHOLE.fullmatch(rest)):
            self.ranges.add(int(pair[1]), int(pair[2]))
        elif word == "durable":
            self.durable = Stretches((int(pair[1]), int(pair[2])) for pair in _PAIR.finditer(rest))
        elif word == "anew":
            self.source = self.ranges = self.durable = None
        else:
            raise ValueError(word)


class ProgressFile:
    """Reads and goes on with such a file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source: PartialSource | None = None
        self.counts_stretches = False
        self._end = 0
        self._handle = -1

    def take_up(self, size_bytes: int) -> Stretches:
        """Open it, and return what is whole of a file that has ``size_bytes`` now.

        What cannot be read says nothing: then nothing is whole.

        Raises:
            StorageError: It cannot be opened.
        """
        said = self._read()
        boot = _boot()
        if said is None:
            found = Stretches()
        elif said.boot != boot:
            # Without a boot identifier nobody knows whether the machine went on.
            found = said.durable or Stretches()
        else:
            found = said.ranges if said.ranges is not None else Stretches([(0, size_bytes)])
        found = found.clipped(size_bytes)
        self.source = said.source if said is not None and found.total else None
        self._open(found, boot, is_fresh=said is None or said.boot != boot or self._end > _TIDY_BYTES, said=said)
        return found

    def came_from(self, source: PartialSource) -> None:
        """Say where what follows comes from."""
        if source != self.source:
            self.source = source
            self._put(f"from {json.dumps(asdict(source))}")

    def count_stretches(self, whole_until: int) -> None:
        """Say that the file is written out of order from now on."""
        self.counts_stretches = True
        self._put(f"ranges {whole_until}")

    def add(self, start: int, end: int) -> None:
        """Say that a stretch was written."""
        self._put(f"whole {start} {end}")

    def made_durable(self, whole: Stretches) -> None:
        """Say what is durable, durably."""
        self._put("durable " + " ".join(f"{start}-{end}" for start, end in whole))
        with atomic.storage_errors("writing", self.path):
            os.fdatasync(self._handle)

    def begin_anew(self) -> None:
        """Say that nothing is there any more."""
        self.source, self.counts_stretches = None, False
        self._put("anew")
        with atomic.storage_errors("writing", self.path):
            os.fdatasync(self._handle)

    def close(self) -> None:
        """Close it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _read(self) -> _Said | None:
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(handle, "rb") as stream:
                data = stream.read(_LIMIT_BYTES + 1)
        except OSError:
            return None
        whole, _, _ = data.rpartition(b"\n")
        self._end = len(whole) + 1 if whole else 0
        if len(data) > _LIMIT_BYTES or not whole:
            return None
        said = _Said()
        try:
            for line in whole.decode("ascii").split("\n"):
                word, _, rest = line.partition(" ")
                said.take(word, rest)
        except (ValueError, TypeError, RecursionError):
            return None
        return said if said.boot else None

    def _open(self, found: Stretches, boot: str, *, is_fresh: bool, said: _Said | None) -> None:
        self.counts_stretches = bool(said is not None and said.ranges is not None) or found.total > found.prefix
        if is_fresh:
            lines = [f"boot {boot}"]
            if self.source is not None:
                lines.append(f"from {json.dumps(asdict(self.source))}")
            if self.counts_stretches:
                lines += [f"ranges {found.prefix}", *(f"whole {start} {end}" for start, end in found)]
            if said is not None and said.boot != boot and found.total:
                lines.append("durable " + " ".join(f"{start}-{end}" for start, end in found))
            text = "\n".join(lines) + "\n"
            if said is None:
                # Nothing is lost with it: no need to wait for the disk.
                with contextlib.suppress(FileNotFoundError), atomic.storage_errors("removing", self.path):
                    self.path.unlink(missing_ok=True)
                self._connect(os.O_CREAT | os.O_EXCL)
                self._end = 0
                self._put(text.removesuffix("\n"))
                return
            atomic.write_text(self.path, text, mode=0o600)
            self._end = len(text)
        self._connect(0)

    def _connect(self, flags: int) -> None:
        with atomic.storage_errors("opening", self.path):
            self._handle = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
            os.ftruncate(self._handle, self._end)

    def _put(self, line: str) -> None:
        data = f"{line}\n".encode("ascii")
        with atomic.storage_errors("writing", self.path):
            done = 0
            try:
                while done < len(data):
                    done += os.pwrite(self._handle, data[done:], self._end + done)
            except OSError:
                # Half a line would spoil the next one.
                os.ftruncate(self._handle, self._end)
                raise
        self._end += len(data)


def _boot() -> str:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip() or "unknown"
    except OSError:
        return f"unknown-{os.urandom(8).hex()}"
