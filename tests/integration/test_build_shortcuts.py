# SPDX-License-Identifier: Apache-2.0
"""What saves time in a build changes nothing of what comes out: hooks in a tree, and images as QEMU sees them."""

from __future__ import annotations

import random
import subprocess

import pytest

from coppice.factory.bootstrap import shortcuts
from coppice.factory.qcow2 import read_qcow2, write_qcow2

pytestmark = pytest.mark.integration


def run_hooks(hooks, root):
    for hook in hooks:
        subprocess.run(["sh", "-c", hook, "exec", root], check=True)


def tree_with(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("content\n")


def test_what_packages_leave_out_is_gone_of_those_that_were_there_before(tmp_path):
    root = tmp_path / "a tree"
    kept = ("usr/share/doc/a/copyright", "usr/share/locale/locale.alias", "usr/bin/tool")
    gone = (
        "usr/share/doc/a/changelog.gz",
        "usr/share/doc/b/examples/one",
        "usr/share/man/man1/tool.1",
        "usr/share/locale/de/LC_MESSAGES/tool.mo",
    )
    tree_with(root, *kept, *gone, "etc/dpkg/dpkg.cfg.d/99mmdebstrap")
    run_hooks(shortcuts.BEFORE, root)
    assert [path for path in kept if not (root / path).is_file()] == []
    assert [path for path in gone if (root / path).exists()] == []
    assert not (root / "usr/share/doc/b").exists()
    said = (root / "etc/dpkg/dpkg.cfg.d/99mmdebstrap").read_text().splitlines()
    assert said[0] == "content"
    assert "path-exclude=/usr/share/man/*" in said
    assert "path-include=/usr/share/doc/*/copyright" in said


def test_certificates_are_gathered_once_and_nothing_of_it_stays(tmp_path):
    root = tmp_path / "tree"
    tree_with(root, "usr/share/doc/x/copyright", "usr/share/man/x", "usr/share/locale/x", "etc/dpkg/dpkg.cfg.d/x")
    run_hooks(shortcuts.BEFORE, root)
    stub = root / "usr/local/sbin/update-ca-certificates"
    # As the package calls it when it is configured: that is not needed.
    assert subprocess.run([stub, "--hooksdir", ""], check=False).returncode == 0
    assert "exec /usr/sbin/update-ca-certificates" in stub.read_text()
    keys = sorted(path.name for path in (root / "etc/ssh").iterdir())
    assert keys == ["ssh_host_ecdsa_key", "ssh_host_ed25519_key", "ssh_host_rsa_key"]
    run_hooks(shortcuts.AFTER, root)
    assert not stub.exists()
    assert list((root / "etc/ssh").iterdir()) == []


def test_images_are_sound_to_qemu_and_have_the_disk(tmp_path):
    chance = random.Random(2)  # noqa: S311 - bytes that do not compress
    raw = tmp_path / "raw"
    with raw.open("wb") as stream:
        stream.write(b"boot" * 5000)
        for number in range(40):
            stream.seek((7 + 31 * number) * 65536)
            stream.write(chance.randbytes(70000) if number % 3 else b"%d" % number * 30000)
        stream.truncate(2 * 1024**3 + 512)
    for name in ("parent", "child"):
        like = read_qcow2(tmp_path / "parent", tmp_path / "read", remembers=True) if name == "child" else None
        write_qcow2(raw, tmp_path / name, timeout_seconds=60, like=like)
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", tmp_path / name], check=True)
        subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", raw, tmp_path / name], check=True)
        with raw.open("r+b") as stream:
            stream.seek(7 * 65536)
            stream.write(b"changed")
