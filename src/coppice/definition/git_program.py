# SPDX-License-Identifier: Apache-2.0
"""Run git with nothing of the user's: no configuration, no credentials, no question on the terminal, one transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from coppice import process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

FETCH_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""Most that one pack of a commit's files may take on disk."""
_MEMORY_BYTES = 2 * 1024**3
_CPU_SECONDS = 300
_SSH = "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=20 -oClearAllForwardings=yes -oForwardAgent=no"

_CONFIGURATION: Final = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.askPass": "",
    "core.bigFileThreshold": "1m",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "fetch.negotiationAlgorithm": "noop",
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",
    "fetch.writeCommitGraph": "false",
    "gc.auto": "0",
    "http.followRedirects": "initial",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "30",
    "http.sslVerify": "true",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "protocol.version": "2",
    "submodule.recurse": "false",
    "transfer.bundleURI": "false",
    "transfer.credentialsInUrl": "die",
    "transfer.fsckObjects": "true",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What git is told of the way to a server.

    Attributes:
        proxy: ``http://host:port``; None: none.
        no_proxy: Hosts that need none.
        ssh_agent: The socket of an agent that has keys for ``ssh``; None: there is none.
        authorities: PEM file of the authorities that servers are verified by; None: the machine's.
    """

    proxy: str | None = None
    no_proxy: tuple[str, ...] = ()
    ssh_agent: str | None = None
    authorities: Path | None = None


def git_environment(scheme: str, home: Path, network: Network) -> dict[str, str]:
    """Return the whole environment of git.

    Args:
        scheme: The only transport that is allowed.
        home: An empty directory.
        network: The way.
    """
    found = {
        "PATH": process.search_path(),
        "LC_ALL": "C.UTF-8",
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "false",
        "SSH_ASKPASS": "false",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ALLOW_PROTOCOL": scheme,
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_SSH_COMMAND": _SSH,
        "GIT_SSH_VARIANT": "ssh",
    }
    if scheme == "https" and network.proxy is not None:
        found |= {"https_proxy": network.proxy, "no_proxy": ",".join(network.no_proxy)}
    if scheme == "https" and network.authorities is not None:
        found["GIT_SSL_CAINFO"] = str(network.authorities)
    if scheme == "ssh" and network.ssh_agent is not None:
        found["SSH_AUTH_SOCK"] = network.ssh_agent
    return found


class Git:
    """A bare repository of one's own, and git to work in it.

    Args:
        repository: Made by the first command (``init``).
        environment: The whole of it, by `git_environment`.
    """

    def __init__(self, repository: Path, environment: Mapping[str, str]) -> None:
        self.repository = repository
        self._environment = dict(environment)

    def run(
        self,
        arguments: Sequence[str | Path],
        seconds: float,
        *,
        configuration: Mapping[str, str] | None = None,
        input_bytes: bytes = b"",
        on_output: Callable[[str], None] | None = None,
        capture_bytes: int = process.CAPTURE_LIMIT_BYTES,
        is_offline: bool = False,
    ) -> bytes:
        """Run git and return what it writes.

        Args:
            arguments: Behind its own options.
            seconds: After which it is ended.
            configuration: In addition.
            input_bytes: What it reads.
            on_output: Told of what it writes, as it comes; an error that it raises ends git.
            capture_bytes: Most of it that is kept.
            is_offline: Whether every transport is forbidden, so that nothing is fetched behind one's back.

        Raises:
            ToolMissingError: git is not installed.
            ToolFailedError: It failed.
            ToolTimeoutError: Time was up.
        """
        settings = [f"{key}={value}" for key, value in {**_CONFIGURATION, **(configuration or {})}.items()]
        options: list[str | Path] = [word for setting in settings for word in ("-c", setting)]
        if self.repository.is_dir():
            options = [f"--git-dir={self.repository}", *options]
        forbidden = {"GIT_ALLOW_PROTOCOL": "none"} if is_offline else {}
        return process.run(
            ["git", *options, *arguments],
            timeout_seconds=seconds,
            cwd=self.repository.parent,
            env=self._environment | forbidden,
            whole_environment=True,
            input_bytes=input_bytes,
            on_output=on_output,
            capture_bytes=capture_bytes,
            linger_seconds=2,
            limits=process.Limits(
                address_space_bytes=_MEMORY_BYTES,
                cpu_seconds=_CPU_SECONDS,
                file_size_bytes=FETCH_LIMIT_BYTES,
                open_files=256,
            ),
        ).stdout
