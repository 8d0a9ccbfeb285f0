# SPDX-License-Identifier: Apache-2.0
"""A libvirtd of a test's own: its sockets, settings, pools and machines are in one directory, and nobody else's.

It runs in a user namespace in which it is nobody in particular, and is therefore the kind of libvirtd that each user
has (``qemu:///session``): it makes no network and touches nothing of the machine. It has two pools: `POOL`, which is as
large as the disk, and `SMALL_POOL`, which is full soon.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice.testing.publishing.server import PublishingServer

if TYPE_CHECKING:
    from collections.abc import Iterator

POOL = "images"
SMALL_POOL = "small"
SMALL_POOL_BYTES = 4 * 1024 * 1024
_CACHE = Path(__file__).parents[3] / ".cache" / "libvirt"
_END_SECONDS = 20.0
_PAUSE_SECONDS = 0.05
_CONFIG = """\
unix_sock_dir = "{run}"
auth_unix_rw = "none"
log_level = 3
log_outputs = "3:stderr"
"""
# Without helpers of its own beside it: no process that writes the machines' logs, no labels of files.
_QEMU_CONFIG = """\
stdio_handler = "file"
security_driver = "none"
"""


class Libvirtd(PublishingServer):
    """A libvirtd; use it as a context.

    Attributes:
        uri: Where it answers.
        pool: Directory of `POOL`.
    """

    def start(self) -> None:
        """Start it, make its pools, and return when it answers."""
        # Paths of tests are long, and those of sockets must not be.
        self._scratch = Path(tempfile.mkdtemp(prefix="coppice-libvirt-"))
        for name in ("run", "config/libvirt", "pool", "small"):
            (self._scratch / name).mkdir(parents=True)
        # What its QEMU can do takes seconds to find out, and is the same each time.
        _CACHE.mkdir(parents=True, exist_ok=True)
        (self._scratch / "libvirtd.conf").write_text(_CONFIG.format(run=self._scratch / "run"), encoding="utf-8")
        (self._scratch / "config" / "libvirt" / "qemu.conf").write_text(_QEMU_CONFIG, encoding="utf-8")
        self.pool = self._scratch / "pool"
        self.uri = f"qemu+unix:///session?socket={self._scratch}/run/libvirt-sock"
        self.resume()
        with self.connection() as connection:
            for name, directory in ((POOL, "pool"), (SMALL_POOL, "small")):
                self.add_pool(connection, name, self._scratch / directory)

    def resume(self) -> None:
        """Start it again after `kill`; its machines and pools are as they were."""
        log = self.directory / "libvirtd.log"
        scratch = self._scratch
        argv = ["bwrap", "--dev-bind", "/", "/", "--size", str(SMALL_POOL_BYTES), "--tmpfs", str(scratch / "small")]
        argv += ["--unshare-user", "--uid", "1000", "--gid", "1000", "--die-with-parent", "--"]
        argv += ["/usr/sbin/libvirtd", "-f", str(scratch / "libvirtd.conf")]
        environment = {
            "HOME": str(scratch),
            "XDG_RUNTIME_DIR": str(scratch / "run"),
            "XDG_CONFIG_HOME": str(scratch / "config"),
            "XDG_CACHE_HOME": str(_CACHE),
            "XDG_DATA_HOME": str(scratch / "data"),
        }
        self.run(argv, log=log, environment=environment)
        self.wait_until(self._answers, log=log)

    def kill(self) -> None:
        """End it as a fault does, at once; its machines run on."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_END_SECONDS)
        self.processes.clear()
        # It ends a moment after the program that started it.
        while self._answers():
            time.sleep(_PAUSE_SECONDS)

    def stop(self) -> None:
        """End its machines, end it, and remove everything."""
        if not hasattr(self, "_scratch"):
            return
        with suppress(Exception):
            self.clear()
        super().stop()
        for note in (self._scratch / "run" / "libvirt" / "qemu" / "run").glob("*.pid"):
            with suppress(ValueError, ProcessLookupError):
                os.kill(int(note.read_text(encoding="ascii")), signal.SIGKILL)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def connection(self) -> closing[Any]:
        """Return a connection, as a context."""
        return closing(library().open(self.uri))

    def add_pool(self, connection: Any, name: str, directory: Path) -> None:
        """Make a pool of a directory, active."""
        directory.mkdir(exist_ok=True)
        xml = f"<pool type='dir'><name>{name}</name><target><path>{directory}</path></target></pool>"
        pool = connection.storagePoolDefineXML(xml, 0)
        pool.create(0)
        pool.setAutostart(1)

    def clear(self) -> None:
        """End every machine, and remove every definition and file."""
        problems = library().libvirtError
        with self.connection() as connection:
            for machine in connection.listAllDomains(0):
                if machine.isActive():
                    machine.destroy()
                with suppress(problems):
                    machine.undefine()
            for pool in connection.listAllStoragePools(0):
                if not pool.isActive():
                    pool.create(0)
                pool.refresh(0)
                for volume in pool.listAllVolumes(0):
                    volume.delete(0)

    def scratch_files(self) -> Iterator[Path]:
        """Yield what is in the directory of `POOL`."""
        yield from sorted(self.pool.iterdir())

    def _answers(self) -> bool:
        try:
            with self.connection():
                return True
        except library().libvirtError:
            return False


def library() -> Any:
    """Return libvirt's library, which says nothing on standard error."""
    import libvirt

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt
