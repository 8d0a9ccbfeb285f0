# SPDX-License-Identifier: Apache-2.0
"""nginx on loopback, serving a directory: a private instance, with ranges, conditions, and TLS where that is asked for.

Directories are shown as pages of links.

It can be told to answer 503 to everything, as a server does that is down for maintenance.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from coppice.factory.ports import free_port
from coppice.testing.publishing.server import PublishingServer, listens

if TYPE_CHECKING:
    from pathlib import Path

NGINX = "/usr/sbin/nginx"
_FIRST_DATE = 1_700_000_000
_CONFIG = """\
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log {directory}/access.log combined;
  client_body_temp_path {directory}/temporary;
  proxy_temp_path {directory}/temporary;
  fastcgi_temp_path {directory}/temporary;
  uwsgi_temp_path {directory}/temporary;
  scgi_temp_path {directory}/temporary;
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port}{tls};
    {certificate}
    root {root};
    location / {{
      autoindex on;
      if (-f {directory}/down) {{ return 503; }}
    }}
  }}
}}
"""


class Nginx(PublishingServer):
    """nginx; use it as a context.

    Args:
        directory: Where it keeps everything; what it serves lies in ``directory / "www"``.
        tls: Certificate and key of the server, PEM; None: plain HTTP.
    """

    def __init__(self, directory: Path, *, tls: tuple[Path, Path] | None = None) -> None:
        """Start nothing yet."""
        super().__init__(directory)
        self._tls = tls
        self._puts = 0

    @property
    def root(self) -> Path:
        """What is served."""
        return self.directory / "www"

    def start(self) -> None:
        """Make the configuration, and start it."""
        self.root.mkdir(exist_ok=True)
        (self.directory / "temporary").mkdir(exist_ok=True)
        self.port = free_port()
        config = self.directory / "nginx.conf"
        certificate = ""
        if self._tls is not None:
            certificate = f"ssl_certificate {self._tls[0]}; ssl_certificate_key {self._tls[1]};"
        config.write_text(
            _CONFIG.format(
                directory=self.directory,
                root=self.root,
                port=self.port,
                tls=" ssl" if self._tls else "",
                certificate=certificate,
                # Else the worker is somebody who may not read what a test wrote.
                user="user root;" if os.geteuid() == 0 else "",
            ),
            encoding="utf-8",
        )
        log = self.directory / "nginx.log"
        self.run([NGINX, "-p", str(self.directory), "-e", str(log), "-c", str(config)], log=log)
        self.wait_until(lambda: listens(self.port), log=log)

    def url(self, path: str = "/") -> str:
        """Return the address of a path that begins with a slash."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{path}"

    def put(self, name: str, data: bytes) -> None:
        """Put a file where it is served, or in place of the one that is.

        Each has a date of its own: nginx makes its validators of the date, to the second, and of the size.
        """
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        self._puts += 1
        os.utime(target, (_FIRST_DATE + self._puts, _FIRST_DATE + self._puts))

    def go_down(self, *, down: bool = True) -> None:
        """Answer 503 to everything from now on; or serve again."""
        flag = self.directory / "down"
        if down:
            flag.touch()
        else:
            flag.unlink(missing_ok=True)
