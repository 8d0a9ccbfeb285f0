# SPDX-License-Identifier: Apache-2.0
"""Image files with a checksum file: signed beside it, as Ubuntu's; in itself, as Fedora's; or not, as Debian's."""

from __future__ import annotations

import hashlib
import re
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.subscription.model import SourceReference, Subscription, TrustBasis
from coppice.testing.nginx import Nginx
from coppice.testing.openpgp import GnuPg
from coppice.testing.stages.stage import NO_TRUST, NOW, SourceStage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class FilesByDetachedKey(SourceStage):
    """One directory that always has the newest, as ``…/noble/current/``: ``SHA256SUMS`` and ``SHA256SUMS.gpg``."""

    driver = "files"
    basis = TrustBasis.OPENPGP
    is_signed = True
    tampered_codes = frozenset({"list-tampered"})
    options: Mapping[str, object] = {"pattern": r"noble-server-cloudimg-(?P<arch>amd64|arm64)\.img"}
    sums_name = "SHA256SUMS"

    def start(self) -> None:
        """Start nginx, and make keys."""
        self.server = Nginx(self.directory / "nginx").__enter__()
        self.gnupg = GnuPg(at=NOW - timedelta(minutes=1)).__enter__()
        self.key = self.gnupg.make_key(at=NOW - timedelta(days=100))
        self.keyring = self.directory / "keyring.asc"
        self.keyring.write_bytes(self.gnupg.export(self.key, armour=True))

    def stop(self) -> None:
        """End both."""
        self.server.stop()
        self.gnupg.__exit__(None, None, None)

    def trust(self) -> Mapping[str, object]:
        """Return the options that say who is trusted."""
        return {"keyring": str(self.keyring)}

    def address(self) -> str:
        """Return what is subscribed to."""
        return self.server.url("/images/")

    def subscription(self) -> Subscription:
        """Return a subscription to the directory."""
        return Subscription(
            name="demo",
            uri=self.address(),
            list_identifier=None,
            trust=NO_TRUST,
            added_at=NOW,
            source=SourceReference(driver="files", options={**self.options, **self.trust()}),
        )

    def date(self, number: int) -> datetime:
        """Return when a version was signed."""
        return NOW - timedelta(hours=100 - number)

    def name(self, arch: str, number: int) -> str:
        """Return the name of an image's file."""
        return f"noble-server-cloudimg-{_ARCHITECTURES[arch]}.img"

    def place(self, number: int) -> str:
        """Return the directory of a version."""
        return "images"

    def publish(self, number: int) -> Mapping[str, bytes]:
        """Publish images, checksums and signature."""
        disks = {arch: f"{arch} {number} ".encode() * 1000 for arch in _ARCHITECTURES}
        for arch, disk in disks.items():
            self.server.put(f"{self.place(number)}/{self.name(arch, number)}", disk)
        self.publish_sums(self.sums({self.name(arch, number): disk for arch, disk in disks.items()}), number)
        return disks

    def sums(self, files: Mapping[str, bytes]) -> bytes:
        """Return the checksum file."""
        files = {**files, "noble-server-cloudimg-amd64.manifest": b"bash 5"}
        return "".join(f"{hashlib.sha256(data).hexdigest()} *{name}\n" for name, data in files.items()).encode()

    def publish_sums(self, sums: bytes, number: int) -> None:
        """Put the checksum file and its signature in place."""
        signature = self.gnupg.sign_detached(sums, self.key, at=self.date(number))
        self.server.put(f"{self.place(number)}/{self.sums_name}.gpg", signature)
        self.server.put(f"{self.place(number)}/{self.sums_name}", sums)

    def tamper(self) -> None:
        """Change a digest in every checksum file."""
        for path in self.server.root.glob(f"images/**/{self.sums_name}"):
            changed = re.sub(rb"(?m)(= |^)[0-9a-f]{8}", lambda match: match[1] + b"00000000", path.read_bytes())
            self.server.put(str(path.relative_to(self.server.root)), changed)

    def fail(self, how: str) -> None:
        """Make the source fail."""
        if how == "gone":
            shutil.rmtree(self.server.root / "images")
        elif how == "empty":
            for path in self.server.root.glob(f"images/**/{self.sums_name}"):
                self.server.put(str(path.relative_to(self.server.root)), b"")
        else:
            self.server.go_down()

    def distrust(self) -> None:
        """Keep another key in the keyring."""
        self.keyring.write_bytes(self.gnupg.export(self.gnupg.make_key("Somebody else"), armour=True))


class FilesByClearKey(FilesByDetachedKey):
    """A directory a version, chosen by its name, with a clear-signed checksum file as Fedora's."""

    sums_name = "Fedora-Cloud-43-CHECKSUM"
    options: Mapping[str, object] = {
        "pattern": r"Fedora-Cloud-Base-Generic-(?P<version>[0-9]+-[0-9.]+)\.(?P<arch>x86_64|aarch64)\.qcow2",
        "directory": "[0-9]+",
        "below": "Cloud/images",
        "checksums_pattern": "Fedora-Cloud-.*-CHECKSUM",
        "title": "Fedora Cloud",
        "os_name": "Fedora",
    }

    def name(self, arch: str, number: int) -> str:
        """Return the name of an image's file."""
        return f"Fedora-Cloud-Base-Generic-43-1.{number}.{arch}.qcow2"

    def place(self, number: int) -> str:
        """Return the directory of a version; all have one, so that another is published in its place."""
        return "images/43/Cloud/images"

    def sums(self, files: Mapping[str, bytes]) -> bytes:
        """Return the checksum file, with sizes in its comments."""
        lines = []
        for name, data in files.items():
            lines += [f"# {name}: {len(data)} bytes", f"SHA256 ({name}) = {hashlib.sha256(data).hexdigest()}"]
        return ("\n".join(lines) + "\n").encode()

    def publish_sums(self, sums: bytes, number: int) -> None:
        """Put the checksum file in place."""
        self.server.put(
            f"{self.place(number)}/{self.sums_name}", self.gnupg.clear_sign(sums, self.key, at=self.date(number))
        )


class FilesByTransport(FilesByDetachedKey):
    """A directory a build, chosen by its name, with an unsigned ``SHA512SUMS`` as Debian's cloud images have it."""

    basis = TrustBasis.TRANSPORT
    is_signed = False
    tampered_codes = frozenset()
    sums_name = "SHA512SUMS"
    options: Mapping[str, object] = {
        "pattern": r"debian-13-generic-(?P<arch>amd64|arm64)-(?P<version>[0-9]{8}-[0-9]+)\.qcow2",
        "directory": "[0-9]{8}-[0-9]+",
        "checksums": "SHA512SUMS",
        "os_name": "Debian",
        "os_version": "13",
    }

    def trust(self) -> Mapping[str, object]:
        """Return the options that say who is trusted."""
        return {"trust": "transport"}

    def name(self, arch: str, number: int) -> str:
        """Return the name of an image's file."""
        return f"debian-13-generic-{_ARCHITECTURES[arch]}-20260101-{number}.qcow2"

    def place(self, number: int) -> str:
        """Return the directory of a version."""
        return f"images/20260101-{number}"

    def sums(self, files: Mapping[str, bytes]) -> bytes:
        """Return the checksum file."""
        return "".join(f"{hashlib.sha512(data).hexdigest()}  {name}\n" for name, data in files.items()).encode()

    def publish_sums(self, sums: bytes, number: int) -> None:
        """Put the checksum file in place, and other directories beside it."""
        self.server.put(f"{self.place(number)}/{self.sums_name}", sums)
        self.server.put("images/latest/README", b"moves")
        self.server.put("images/20251231-1/README", b"nothing yet")
