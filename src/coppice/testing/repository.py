# SPDX-License-Identifier: Apache-2.0
"""A package mirror in a folder: real packages, indices by ``apt-ftparchive``, signed with a throw-away key."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.testing.openpgp import GnuPg, ThrowAwayKey

_TIMEOUT_SECONDS = 60
_ARCHITECTURE = "amd64"


class PackageMirror:
    """A release of Debian with its updates and its security updates, as a mirror has them.

    Args:
        folder: An empty one; the mirror's address is ``file://FOLDER/debian``.
        gnupg: Signs.
        key: By this key.
        suite: Which release.
    """

    def __init__(self, folder: Path, gnupg: GnuPg, key: ThrowAwayKey, *, suite: str = "bookworm") -> None:
        self.folder = folder
        self.keyring = folder / "keyring.gpg"
        self._gnupg, self._key, self._suite = gnupg, key, suite
        folder.mkdir(parents=True, exist_ok=True)
        self.keyring.write_bytes(gnupg.export(key))
        main, security = folder / "debian", folder / "debian-security"
        self.main = PackageSuite(main, suite, gnupg, key, label="Debian")
        self.updates = PackageSuite(main, f"{suite}-updates", gnupg, key, label="Debian")
        self.security = PackageSuite(security, f"{suite}-security", gnupg, key, label="Debian-Security")

    @property
    def suites(self) -> tuple[PackageSuite, ...]:
        """The release, its updates, its security updates."""
        return (self.main, self.updates, self.security)

    @property
    def uri(self) -> str:
        """What `factory.mirror` is set to."""
        return f"file://{self.folder}/debian"

    def copy(self, folder: Path) -> PackageMirror:
        """Return the same mirror in another folder, which is not there yet."""
        shutil.copytree(self.folder, folder)
        return PackageMirror(folder, self._gnupg, self._key, suite=self._suite)

    def publish(self) -> None:
        """Index and sign all three."""
        for suite in self.suites:
            suite.publish()


class PackageSuite:
    """One suite of a mirror.

    Args:
        root: Of the repository.
        name: Of the suite.
        gnupg: Signs.
        key: By this key.
        label: What it is called.
    """

    def __init__(self, root: Path, name: str, gnupg: GnuPg, key: ThrowAwayKey, *, label: str) -> None:
        self.folder = root / "dists" / name
        self._root, self._name, self._label = root, name, label
        self._gnupg, self._key = gnupg, key
        self._pool = root / "pool" / name
        self._binary = self.folder / "main" / f"binary-{_ARCHITECTURE}"
        for folder in (self._pool, self._binary):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, version: str) -> None:
        """Make a package that holds nothing; it is there from the next `publish` on."""
        tree = self._root / "build"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN").chmod(0o755)
        (tree / "DEBIAN" / "control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: {_ARCHITECTURE}\n"
            "Maintainer: Test <test@example.org>\nDescription: a package of a test\n"
        )
        file = self._pool / f"{name}_{version.replace(':', '%3a')}_{_ARCHITECTURE}.deb"
        _run(["dpkg-deb", "--root-owner-group", "--build", "-Znone", str(tree), str(file)])
        shutil.rmtree(tree)

    def put(self, file: Path, version: str = "", edit: Callable[[Path], object] = lambda _tree: None) -> None:
        """Take a package as it is, or changed as another version; it is there from the next `publish` on.

        Args:
            file: A ``.deb``, named as a package manager keeps it.
            version: The version that it becomes; empty: it stays as it is.
            edit: Called with the folder of its files; the package's list of digests follows what it changes.
        """
        if not version:
            shutil.copyfile(file, self._pool / file.name)
            return
        tree = self._root / "build"
        _run(["dpkg-deb", "--raw-extract", str(file), str(tree)])
        control = tree / "DEBIAN" / "control"
        lines = control.read_text(encoding="utf-8").splitlines()
        lines = [f"Version: {version}" if line.startswith("Version: ") else line for line in lines]
        control.write_text("\n".join(lines) + "\n", encoding="utf-8")
        edit(tree)
        _write_digests(tree)
        name, _, architecture = file.stem.split("_")
        made = self._pool / f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
        _run(["dpkg-deb", "--root-owner-group", "--build", "-Znone", str(tree), str(made)])
        shutil.rmtree(tree)

    def remove(self, name: str) -> None:
        """Take all versions of a package away, from the next `publish` on."""
        for file in self._pool.glob(f"{name}_*.deb"):
            file.unlink()

    def publish(
        self,
        *,
        at: datetime | None = None,
        valid: timedelta | None = None,
        by_hash: bool = True,
        key: ThrowAwayKey | None = None,
    ) -> None:
        """Index what there is, and sign it.

        Args:
            at: The index's date; None: now.
            valid: For how long from then on it counts; None: for ever.
            by_hash: Whether files can be had by their digest.
            key: Signs in the stead of the mirror's own.
        """
        made_at = at or datetime.now(UTC)
        index = _run(["apt-ftparchive", "packages", f"pool/{self._name}"], cwd=self._root)
        shutil.rmtree(self._binary)
        self._binary.mkdir()
        (self._binary / "Packages").write_bytes(index)
        (self._binary / "Packages.xz").write_bytes(lzma.compress(index, preset=0))
        for file in ("InRelease", "Release"):
            (self.folder / file).unlink(missing_ok=True)
        said = {
            "Origin": "Debian",
            "Label": self._label,
            "Suite": self._name,
            "Codename": self._name,
            "Architectures": _ARCHITECTURE,
            "Components": "main",
            "Acquire-By-Hash": "yes" if by_hash else "no",
        }
        options = [word for key_, value in said.items() for word in ("-o", f"APT::FTPArchive::Release::{key_}={value}")]
        text = _run(["apt-ftparchive", *options, "release", str(self.folder)]).decode()
        lines = [line for line in text.splitlines() if not line.startswith("Date:")]
        lines.insert(0, f"Date: {made_at:%a, %d %b %Y %H:%M:%S} UTC")
        if valid is not None:
            lines.insert(1, f"Valid-Until: {made_at + valid:%a, %d %b %Y %H:%M:%S} UTC")
        document = self._gnupg.clear_sign("\n".join([*lines, ""]).encode(), key or self._key)
        if by_hash:
            self._lay_by_hash()
        (self.folder / "InRelease").write_bytes(document)

    def _lay_by_hash(self) -> None:
        for file in [each for each in self._binary.iterdir() if each.is_file()]:
            there = self._binary / "by-hash" / "SHA256" / hashlib.sha256(file.read_bytes()).hexdigest()
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, there)


def _write_digests(tree: Path) -> None:
    """Write what ``dpkg --verify`` holds the files of a package against; its configuration is not in it."""
    listed = tree / "DEBIAN" / "conffiles"
    configuration = set(listed.read_text(encoding="utf-8").split("\n")) if listed.exists() else set()
    lines = []
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree)
        if path.is_file() and not path.is_symlink() and name.parts[0] != "DEBIAN" and f"/{name}" not in configuration:
            lines.append(f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {name}\n")
    (tree / "DEBIAN" / "md5sums").write_text("".join(lines), encoding="utf-8")


def _run(argv: list[str], *, cwd: Path | None = None) -> bytes:
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, check=False, timeout=_TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout
