# SPDX-License-Identifier: Apache-2.0
"""Apache's WebDAV (mod_dav) on loopback, with a configuration of its own."""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import shutil
import tempfile
from pathlib import Path

from coppice.factory.ports import free_port
from coppice.testing.publishing.server import PublishingServer, listens, partial_files

APACHE = "/usr/sbin/apache2"
MODULES = "/usr/lib/apache2/modules"
_NAMES = ("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "dav", "dav_fs")
_CONFIG = """\
ServerRoot {directory}
PidFile {directory}/apache.pid
Listen 127.0.0.1:{port}
ServerName localhost
{modules}
ErrorLog {directory}/error.log
DocumentRoot {directory}/public
DavLockDB {directory}/locks
DefaultRuntimeDir {directory}
{user}
<Directory {directory}/public>
Dav On
AllowOverride None
{access}
</Directory>
"""
_WHO = """\
AuthType Basic
AuthName lists
AuthUserFile {directory}/users
Require valid-user"""


class WebDavServer(PublishingServer):
    """Apache with a collection below which everybody on this machine may write, or who has the password.

    ``password`` is that of the user ``jane``, set before it is started; None: it asks for none.
    """

    password: str | None = None

    def start(self) -> None:
        """Make the configuration, and start it."""
        self.port = free_port()
        # Started by root, its workers are another user's, who cannot reach the temporary directories of tests.
        self._scratch = Path(tempfile.mkdtemp(prefix="coppice-webdav-"))
        self._scratch.chmod(0o755)
        self.public = self._scratch / "public"
        self.public.mkdir()
        user = ""
        if os.getuid() == 0:
            found = pwd.getpwnam("www-data")
            user = "User www-data\nGroup www-data"
            for path in (self._scratch, self.public):
                os.chown(path, found.pw_uid, found.pw_gid)
        access = "Require all granted"
        if self.password is not None:
            digest = base64.b64encode(hashlib.sha1(self.password.encode(), usedforsecurity=False).digest()).decode()
            (self._scratch / "users").write_text(f"jane:{{SHA}}{digest}\n", encoding="ascii")
            access = _WHO.format(directory=self._scratch)
        config = self._scratch / "apache.conf"
        modules = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in _NAMES)
        config.write_text(
            _CONFIG.format(directory=self._scratch, port=self.port, modules=modules, user=user, access=access),
            encoding="utf-8",
        )
        self.run([APACHE, "-f", str(config), "-DFOREGROUND"], log=self._scratch / "apache.out")
        self.wait_until(lambda: listens(self.port), log=self._scratch / "error.log")

    def stop(self) -> None:
        """End it, and remove what it kept."""
        super().stop()
        scratch = getattr(self, "_scratch", None)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)

    def options(self, area: str) -> dict[str, object]:
        """Return the options of a publisher that writes to a collection."""
        return {"url": f"http://127.0.0.1:{self.port}/{area}", "allow_private_addresses": True}

    def leftovers(self, area: str) -> list[str]:
        """Return temporary files, Apache's own too."""
        return partial_files(self.public / area)
