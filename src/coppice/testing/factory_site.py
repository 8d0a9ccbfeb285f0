# SPDX-License-Identifier: Apache-2.0
"""A site that builds: its settings, its definitions, a package mirror of this machine, and the real command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from coppice.factory.model import Package
    from coppice.testing.repository import PackageMirror, PackageSuite

_SETTINGS = """\
state_directory = "{root}/state"
definitions_directory = "{root}/definitions"
[factory]
mirror = "{mirror}"
keyring = "{keyring}"
{factory}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that ended.

    Attributes:
        code: Its exit code.
        document: The JSON object that it printed.
        said: What went to standard error.
    """

    code: int
    document: dict[str, Any]
    said: str

    @property
    def data(self) -> Any:
        """What it answered."""
        return self.document["data"]

    @property
    def codes(self) -> list[str]:
        """The codes of what went wrong."""
        return [str(each["code"]) for each in self.document["errors"]]


class CommandSite:
    """A place where commands of Coppice run as processes of their own.

    Args:
        root: An empty directory; temporary files of commands lie in ``home`` below it.
        settings: The text of its settings.
    """

    def __init__(self, root: Path, settings: str) -> None:
        self.root, self.state, self.home = root, root / "state", root / "home"
        self.home.mkdir(parents=True)
        self.file = root / "coppice.toml"
        self.file.write_text(settings, encoding="utf-8")

    def argv(self, *words: object) -> list[str]:
        """Return the arguments of a command."""
        return [sys.executable, "-m", "coppice", "--config", str(self.file), "--json", *map(str, words)]

    def environment(self) -> dict[str, str]:
        """Return all of a command's environment."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "TMPDIR": str(self.home)}

    def run(self, *words: object, before: Sequence[str] = (), seconds: float = 3600) -> Ended:
        """Run a command to its end.

        Args:
            words: Of the command.
            before: A program, with its arguments, that runs it.
            seconds: For it.
        """
        done = subprocess.run(
            [*before, *self.argv(*words)],
            env=self.environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stdout, f"{words}: exit code {done.returncode}, {done.stderr}"
        return Ended(code=done.returncode, document=json.loads(done.stdout), said=done.stderr)

    def ok(self, *words: object) -> Any:
        """Run a command that must end well; return what it answers."""
        ended = self.run(*words)
        assert ended.code == 0, f"{words}: {json.dumps(ended.document['errors'], indent=1)[-4000:]}"
        return ended.data

    def start(self, *words: object, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            [*before, *self.argv(*words)],
            env=self.environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


class FactorySite(CommandSite):
    """A site that builds from a mirror.

    Args:
        root: An empty directory.
        mirror: Where packages come from.
        definitions: The text of ``appliance.toml`` by the name of the definition.
        uri: What the mirror is called by; empty: a folder of this machine.
        factory: Further lines of the section ``[factory]`` of the settings, and sections after it.
    """

    def __init__(
        self,
        root: Path,
        mirror: PackageMirror,
        definitions: Mapping[str, str],
        *,
        uri: str = "",
        factory: str = "",
    ) -> None:
        self.mirror = mirror
        text = _SETTINGS.format(root=root, mirror=uri or mirror.uri, keyring=mirror.keyring, factory=factory)
        super().__init__(root, text)
        for name, definition in definitions.items():
            folder = root / "definitions" / name
            folder.mkdir(parents=True)
            (folder / "appliance.toml").write_text(definition, encoding="utf-8")

    def forget_builds(self, *, base: bool) -> None:
        """Forget what was built; ``base``: the tree of the release too."""
        shutil.rmtree(self.state / "factory" / "builds", ignore_errors=True)
        if base:
            for path in (self.state / "factory" / "parents").glob("*.tar.zst"):
                path.unlink()


def fill(suite: PackageSuite, packages: Iterable[Package], kept: Path) -> None:
    """Give a suite the packages of a build, from where the builder keeps them as it fetched them."""
    for each in packages:
        suite.put(kept_package(each, kept))


def kept_package(package: Package, kept: Path) -> Path:
    """Return the file of a package, as apt names it."""
    return kept / f"{package.name}_{package.version.replace(':', '%3a')}_{package.architecture}.deb"
