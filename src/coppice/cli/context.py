# SPDX-License-Identifier: Apache-2.0
"""What every command is handed: settings, database, clock, monitor, output; each made when it is first asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.cli.output import Output
from coppice.cli.progress import make_monitor
from coppice.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.database import Database
    from coppice.http import Client
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.definitions import Sources


class Context:
    """The run of one command.

    Args:
        config: The file named with ``--config``.
        json: Whether one JSON object is printed instead of text.
        quiet: Whether notes and progress are left out.
        verbose: Whether details and tracebacks are shown.
        color: Whether colour is wanted.
        environ: The environment; the process's when None.
        clock: Tells the time.
    """

    def __init__(
        self,
        *,
        config: Path | None = None,
        json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        color: bool = True,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self.color = color
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self.command = ""
        self.clock: Clock = clock or SystemClock()
        self._settings: Settings | None = None
        self._database: Database | None = None
        self._monitor: Monitor | None = None

    @property
    def output(self) -> Output:
        """Where the answer for people goes."""
        return Output(quiet=self.quiet, color=self.color)

    @property
    def monitor(self) -> Monitor:
        """Where progress is told: silent with ``--json`` and ``--quiet``."""
        if self._monitor is None:
            self._monitor = make_monitor(sys.stderr, silent=self.json or self.quiet, color=self.color)
        return self._monitor

    @property
    def settings(self) -> Settings:
        """The settings.

        Raises:
            SettingsError: They are wrong.
            UnreadableFileError: A settings file cannot be read.
        """
        if self._settings is None:
            from coppice.settings.load import load_settings

            settings = load_settings(config=self.config, environ=self.environ, options={})
            if settings.clouds:
                from coppice.workflows.mapping import check_clouds

                check_clouds(settings.clouds.values())
            self._settings = settings
        return self._settings

    @property
    def database(self) -> Database:
        """The database; it is made when it is missing. From now on hooks are told of what happens.

        Raises:
            DatabaseError: It cannot be opened.
        """
        is_new = self._database is None
        database = self._open_database()
        if is_new and self.settings.hooks:
            from coppice.workflows.tell import meet_hooks

            meet_hooks(self.settings, database, self.clock)
        return database

    def _open_database(self) -> Database:
        if self._database is None:
            from coppice.database import Database

            self._database = Database(self.settings.database_url)
        return self._database

    def existing_database(self) -> Database | None:
        """Return the database, or None when there is none yet; nothing is made.

        Raises:
            DatabaseError: It is there and cannot be opened.
        """
        path = self.database_file()
        if path is not None and not _exists(path):
            return None
        return self._open_database()

    def database_file(self) -> Path | None:
        """Return the file of a SQLite database; None for a database on a server."""
        scheme, _, rest = self.settings.database_url.partition("://")
        if scheme.partition("+")[0] != "sqlite":
            return None
        return Path(rest.partition("?")[0].removeprefix("/"))

    def tell_hooks(self) -> None:
        """Tell hooks what is due: at the end of a run. What fails is tried again later, and does not fail the run.

        Raises:
            DatabaseError: The database failed.
        """
        if self.settings.hooks:
            from coppice.workflows.tell import tell

            tell(self.settings, self.database, self.clock, self.monitor)

    def client(self) -> Client:
        """Return a client that fetches within the bounds of the settings.

        Raises:
            SettingsError: The settings are wrong.
        """
        from coppice.http import Client

        return Client(self.settings.transfer, clock=self.clock)

    def definitions_directory(self) -> Path:
        """Return where definitions are: the site's, or those that Coppice ships."""
        if self.settings.definitions_directory is not None:
            return self.settings.definitions_directory
        package = Path(__file__).resolve().parent.parent
        shipped = package / "_definitions"
        return shipped if shipped.is_dir() else package.parent.parent / "definitions"

    def definition_defaults(self) -> dict[str, object]:
        """Return what the site says where a definition says nothing.

        Raises:
            SettingsError: The settings are wrong.
        """
        from coppice.definition.defaults import site_defaults

        return site_defaults(self.settings.factory)

    def definition_sources(self) -> Sources:
        """Return where definitions from git are kept.

        Raises:
            SettingsError: The settings are wrong.
        """
        from coppice.definition.git_program import Network
        from coppice.workflows.definitions import Sources

        transfer, authorities = self.settings.transfer, self.environ.get("SSL_CERT_FILE")
        return Sources(
            state_directory=self.settings.state_directory,
            own=self.definitions_directory(),
            network=Network(
                proxy=transfer.proxy,
                no_proxy=transfer.no_proxy,
                ssh_agent=self.environ.get("SSH_AUTH_SOCK"),
                authorities=None if authorities is None else Path(authorities),
            ),
            clock=self.clock,
            monitor=self.monitor,
            defaults=self.definition_defaults(),
        )

    def definition_places(self) -> tuple[Path, ...]:
        """Return every directory whose folders are definitions: the site's or the shipped ones, and those from git.

        Raises:
            DefinitionSourceError: What is pinned cannot be had, or is not what it was.
        """
        own = self.definitions_directory()
        if not _exists(self.settings.state_directory / "definitions" / "sources.toml"):
            return (own,)
        from coppice.workflows.definitions import definition_places

        return definition_places(self.definition_sources())

    def close(self) -> None:
        """Give back what was opened."""
        if self._database is not None:
            self._database.close()
            self._database = None


def _exists(path: Path) -> bool:
    with storage_errors("looking for", path):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True
