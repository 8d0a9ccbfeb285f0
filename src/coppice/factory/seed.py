# SPDX-License-Identifier: Apache-2.0
"""What a boot test gives its guest: a throw-away SSH key, and a disk with cloud-init's NoCloud data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BootTestError, ToolFailedError
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SEED_KIB = 2048
_TOOL_SECONDS = 60.0


def make_key(work: Path) -> Path:
    """Make an ed25519 key pair in ``work``; return the path of the private half.

    Raises:
        BootTestError: It could not be made.
    """
    key = work / "key"
    _tool(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "boot-test", "-f", key])
    return key


def make_seed(work: Path, *, public_key: str, instance: str) -> Path:
    """Make a NoCloud seed disk in ``work`` that lets ``public_key`` in; return its path.

    Raises:
        BootTestError: It could not be made.
        StorageError: It could not be written.
    """
    files = {"meta-data": meta_data(instance).encode(), "user-data": user_data(public_key).encode()}
    return make_disk(work, label="CIDATA", files=files)


def make_disk(work: Path, *, label: str, files: Mapping[str, bytes]) -> Path:
    """Make a small FAT disk named ``label`` in ``work``, with ``files`` by relative path; return its path.

    Raises:
        BootTestError: It could not be made.
        StorageError: It could not be written.
    """
    folder = work / "seed"
    image = work / "seed.img"
    with storage_errors("writing", folder):
        folder.mkdir()
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        tops = sorted(folder.iterdir())
    _tool(["mkfs.vfat", "-n", label, "-C", image, str(_SEED_KIB)])
    _tool(["mcopy", "-s", "-i", image, *tops, "::"])
    return image


def meta_data(instance: str) -> str:
    """Return NoCloud's ``meta-data``."""
    return json.dumps({"instance-id": instance, "local-hostname": "boot-test"}) + "\n"


def user_data(public_key: str) -> str:
    """Return a ``user-data`` that lets ``public_key`` in as the image's own default user."""
    return "#cloud-config\n" + json.dumps({"ssh_authorized_keys": [public_key.strip()]}) + "\n"


def _tool(argv: list[str | Path]) -> None:
    try:
        run(argv, timeout_seconds=_TOOL_SECONDS, env={"MTOOLS_SKIP_CHECK": "1"})
    except ToolFailedError as problem:
        raise BootTestError(f"preparing the boot test failed: {problem.message}", details=problem.details) from problem
