# SPDX-License-Identifier: Apache-2.0
"""Where settings files and state lie by default."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_FILE = Path("/etc/coppice/coppice.toml")
SYSTEM_STATE = Path("/var/lib/coppice")
FILE_NAME = "coppice/coppice.toml"


def settings_files(
    environ: Mapping[str, str], config: Path | None, system_file: Path = SYSTEM_FILE
) -> tuple[Path, ...]:
    """Return the settings files that count, the weakest first, whether they exist or not."""
    user = _xdg(environ, "XDG_CONFIG_HOME", ".config")
    found = [system_file]
    if user is not None:
        found.append(user / FILE_NAME)
    if config is not None:
        found.append(config)
    return tuple(found)


def default_state_directory(environ: Mapping[str, str]) -> Path:
    """Return ``/var/lib/coppice`` for root, the user's data directory for others.

    Raises:
        SettingsError: The user has no home directory.
    """
    if os.geteuid() == 0:
        return SYSTEM_STATE
    data = _xdg(environ, "XDG_DATA_HOME", ".local/share")
    if data is None:
        raise SettingsError(
            "no directory for Coppice's files: this user has no home directory",
            resolution="Set `state_directory` in the settings, or COPPICE_STATE_DIRECTORY.",
        )
    return data / "coppice"


def home_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the user's home, also when HOME is not set; None when there is none."""
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            return None
    return Path(home) if home.startswith("/") else None


def _xdg(environ: Mapping[str, str], variable: str, default: str) -> Path | None:
    # The XDG specification: a relative path there is invalid and is to be ignored.
    said = environ.get(variable, "")
    if said.startswith("/"):
        return Path(said)
    home = home_directory(environ)
    return None if home is None else home / default
