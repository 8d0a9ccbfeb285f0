# SPDX-License-Identifier: Apache-2.0
"""OpenSSH's server on loopback, for SFTP only; readers read the files, as a web server beside it would."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

from coppice.factory.ports import free_port
from coppice.testing.publishing.folder import Folder
from coppice.testing.publishing.server import listens

SSHD = "/usr/sbin/sshd"
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
PidFile {directory}/sshd.pid
AuthorizedKeysFile {directory}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp {sftp}
"""


class SftpServer(Folder):
    """OpenSSH's sshd with a host key and one user key of its own."""

    def start(self) -> None:
        """Make keys and configuration, and start it."""
        # sshd separates its privileges below this directory; Debian makes it when the service starts.
        if getpass.getuser() == "root":
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.port = free_port()
        for name in ("host_key", "user_key"):
            key = self.directory / name
            if not key.exists():
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (self.directory / "authorized_keys").write_bytes((self.directory / "user_key.pub").read_bytes())
        host_key = (self.directory / "host_key.pub").read_text(encoding="ascii").split()
        known = f"[127.0.0.1]:{self.port} {host_key[0]} {host_key[1]}\n"
        (self.directory / "known_hosts").write_text(known, encoding="ascii")
        config = self.directory / "sshd_config"
        config.write_text(_CONFIG.format(port=self.port, directory=self.directory, sftp=SFTP_SERVER), encoding="utf-8")
        log = self.directory / "sshd.log"
        self.run([SSHD, "-D", "-e", "-f", str(config)], log=log)
        self.wait_until(lambda: listens(self.port), log=log)

    def options(self, area: str) -> dict[str, object]:
        """Return the options of a publisher that writes to a sub-folder."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "key_file": str(self.directory / "user_key"),
            "known_hosts": str(self.directory / "known_hosts"),
            "path": str(self.directory / area),
            "url": (self.directory / area).as_uri(),
            "timeout": 30,
        }
