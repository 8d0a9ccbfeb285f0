# SPDX-License-Identifier: Apache-2.0
"""Throw-away OpenPGP keys, made and used by the real GnuPG in a home of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrowAwayKey:
    """A key pair of a test.

    Attributes:
        fingerprint: Of the primary key, in upper-case hexadecimal.
        name: Its user ID.
    """

    fingerprint: str
    name: str


class GnuPg:
    """GnuPG with a home of its own, which goes when it is left, its agent with it.

    Args:
        at: When it makes keys and signatures, where nothing else is said; None: now.
    """

    def __init__(self, *, at: datetime | None = None) -> None:
        self._at = at

    def __enter__(self) -> Self:
        """Make the home; its path is short, since the agent's socket is in it."""
        self._home = Path(tempfile.mkdtemp(prefix="gpg-"))
        self._count = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the agent, and remove the home."""
        subprocess.run(
            ["gpgconf", "--homedir", str(self._home), "--kill", "all"], check=False, capture_output=True, timeout=30
        )
        shutil.rmtree(self._home, ignore_errors=True)

    def make_key(
        self,
        name: str = "Images <images@example.org>",
        *,
        algorithm: str = "ed25519",
        expires: str = "never",
        at: datetime | None = None,
    ) -> ThrowAwayKey:
        """Make a key without a passphrase.

        Args:
            name: Its user ID.
            algorithm: ``ed25519``, ``rsa3072`` …
            expires: ``never``, ``10d`` …
            at: When it is made; None: now.
        """
        self._count += 1
        unique = f"{self._count} {name}"
        self._run(["--passphrase", "", "--quick-gen-key", unique, algorithm, "sign,cert", expires], at=at)
        listed = self._run(["--with-colons", "--list-keys", f"={unique}"]).decode()
        found = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        return ThrowAwayKey(fingerprint=found, name=unique)

    def add_subkey(self, key: ThrowAwayKey, algorithm: str = "ed25519") -> None:
        """Give ``key`` a subkey that signs from now on."""
        self._run(["--passphrase", "", "--quick-add-key", key.fingerprint, algorithm, "sign", "never"])

    def revoke(self, key: ThrowAwayKey) -> None:
        """Revoke ``key`` with the certificate that GnuPG laid by when it was made."""
        laid_by = self._home / "openpgp-revocs.d" / f"{key.fingerprint}.rev"
        self._run(["--import"], data=laid_by.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))

    def revoke_subkey(self, key: ThrowAwayKey) -> None:
        """Revoke the first subkey of ``key``."""
        self._run(
            ["--command-fd", "0", "--no-tty", "--edit-key", key.fingerprint], data=b"key 1\nrevkey\ny\n0\n\ny\nsave\n"
        )

    def prolong(self, key: ThrowAwayKey, expires: str) -> None:
        """Give ``key`` another date of expiry."""
        self._run(["--quick-set-expire", key.fingerprint, expires])

    def export(self, *keys: ThrowAwayKey, armour: bool = False) -> bytes:
        """Return the public keys."""
        form = ["--armor"] if armour else []
        return self._run([*form, "--export", *(key.fingerprint for key in keys)])

    def export_secret(self, key: ThrowAwayKey) -> bytes:
        """Return the secret key, which no keyring may hold."""
        return self._run(["--export-secret-keys", key.fingerprint])

    def clear_sign(
        self, text: bytes, *keys: ThrowAwayKey, at: datetime | None = None, digest: str = "sha512", expires: str = "0"
    ) -> bytes:
        """Return ``text`` clear-signed by each of ``keys``."""
        return self._sign(["--clear-sign"], text, keys, at=at, digest=digest, expires=expires)

    def sign_detached(
        self,
        data: bytes,
        *keys: ThrowAwayKey,
        at: datetime | None = None,
        digest: str = "sha512",
        armour: bool = False,
        expires: str = "0",
    ) -> bytes:
        """Return a detached signature of ``data`` by each of ``keys``."""
        return self._sign(
            [*(["--armor"] if armour else []), "--detach-sign"], data, keys, at=at, digest=digest, expires=expires
        )

    def sign_inline(self, data: bytes, *keys: ThrowAwayKey, armour: bool = False) -> bytes:
        """Return ``data`` compressed and signed in one message, as mail has it."""
        return self._sign([*(["--armor"] if armour else []), "--sign"], data, keys)

    def _sign(
        self,
        form: list[str],
        data: bytes,
        keys: tuple[ThrowAwayKey, ...],
        *,
        at: datetime | None = None,
        digest: str = "sha512",
        expires: str = "0",
    ) -> bytes:
        who = [word for key in keys for word in ("--local-user", key.fingerprint)]
        words = [*who, "--digest-algo", digest, "--default-sig-expire", expires]
        return self._run([*words, *form], data=data, at=at)

    def _run(self, words: list[str], *, data: bytes = b"", at: datetime | None = None) -> bytes:
        at = at or self._at
        time = [] if at is None else ["--faked-system-time", f"{at:%Y%m%dT%H%M%S}"]
        argv = ["gpg", "--homedir", str(self._home), "--batch", "--no-tty", "--pinentry-mode", "loopback", *time]
        done = subprocess.run(
            [*argv, *words],
            input=data,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "HOME": str(self._home)},
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout
