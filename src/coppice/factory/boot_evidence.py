# SPDX-License-Identifier: Apache-2.0
"""What is kept of a boot test that failed: the whole log of the serial console, and what was on the screen."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors

if TYPE_CHECKING:
    import socket
    from datetime import datetime
    from pathlib import Path

CONSOLE = "console.log"
SCREEN = "screen.png"
KEPT_FOR = timedelta(days=30)
_LOG_LIMIT_BYTES = 16 * 1024 * 1024
_ANSWER_SECONDS = 20.0
_LONGEST_ANSWER_BYTES = 1024 * 1024


class Control:
    """QEMU's monitor, spoken to by QMP."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._buffer = b""

    def picture(self, path: Path) -> bool:
        """Write what is on the screen as PNG to ``path``; tell whether it was done."""
        wanted = {"filename": str(path), "format": "png"}
        with contextlib.suppress(OSError, ValueError):
            return self._does("qmp_capabilities") and self._does("screendump", wanted) and path.stat().st_size > 0
        return False

    def _does(self, command: str, arguments: dict[str, str] | None = None) -> bool:
        told = {"execute": command, "arguments": arguments or {}, "id": command}
        deadline = time.monotonic() + _ANSWER_SECONDS
        self._end.settimeout(_ANSWER_SECONDS)
        self._end.sendall(json.dumps(told).encode() + b"\n")
        while time.monotonic() < deadline and len(self._buffer) < _LONGEST_ANSWER_BYTES:
            # Greetings and events pass by; what has the command's name is its answer.
            while b"\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\n")
                answer = json.loads(line)
                if answer.get("id") == command:
                    return "return" in answer
            got = self._end.recv(65536)
            if not got:
                return False
            self._buffer += got
        return False


def keep_failure(folder: Path, *, serial_log: Path, control: Control | None) -> tuple[Path, ...]:
    """Keep the console's log and the screen's picture in ``folder``, in the place of earlier ones; return their paths.

    Args:
        folder: Of this image and this gate.
        serial_log: The console's log.
        control: Of the machine; None: it has ended.

    Raises:
        StorageError: They could not be written.
    """
    kept: list[Path] = []
    with storage_errors("writing", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (CONSOLE, SCREEN):
            (folder / name).unlink(missing_ok=True)
        if serial_log.exists():
            with serial_log.open("rb") as source, (folder / CONSOLE).open("wb") as log:
                source.seek(max(0, serial_log.stat().st_size - _LOG_LIMIT_BYTES))
                shutil.copyfileobj(source, log)
            kept.append(folder / CONSOLE)
    # QEMU writes where it works, and nowhere else.
    picture = serial_log.with_name(SCREEN)
    if control is not None and control.picture(picture):
        with storage_errors("writing", folder / SCREEN):
            shutil.copyfile(picture, folder / SCREEN)
        kept.append(folder / SCREEN)
    return tuple(kept)


def forget_failures(root: Path, now: datetime) -> tuple[Path, ...]:
    """Remove what `keep_failure` kept more than `KEPT_FOR` ago; return the folders that went.

    Args:
        root: Where it is kept: a folder for each image, with one for each gate.
        now: The time.

    Raises:
        StorageError: It could not be removed.
    """
    gone: list[Path] = []
    with storage_errors("tidying up", root):
        for folder in sorted(root.glob("*/*/")):
            # Another run may tidy up at the same time.
            with contextlib.suppress(FileNotFoundError):
                # The newest file counts: a failure of the same gate writes in the place of the earlier one's.
                newest = max(each.stat().st_mtime for each in (folder, *folder.iterdir()))
                if newest <= (now - KEPT_FOR).timestamp():
                    shutil.rmtree(folder)
                    gone.append(folder)
        for folder in {each.parent for each in gone}:
            with contextlib.suppress(OSError):
                folder.rmdir()
    return tuple(gone)
