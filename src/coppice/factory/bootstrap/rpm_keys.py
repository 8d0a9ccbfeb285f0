# SPDX-License-Identifier: Apache-2.0
"""The keys whose signatures a release's packages must bear: pinned by fingerprint, taken from where they lie here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, DocumentError
from coppice.formats.openpgp import armour, read_keyring, split_keyring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.factory.bootstrap.rpm_releases import RpmRelease

_FOLDERS = (Path("/usr/share/distribution-gpg-keys"), Path("/etc/pki/rpm-gpg"))
_MOST_BYTES = 4 * 1024 * 1024


def find_keys(release: RpmRelease, keyring: Path | None, folders: Sequence[Path] = _FOLDERS) -> str:
    """Return the keys of ``release`` in ASCII armour, one block a key.

    Args:
        release: Whose fingerprints are pinned.
        keyring: The site's; None: one of those that distributions lay on this machine.
        folders: Where these lie.

    Raises:
        BuildError: There is no file with one of them.
    """
    places = [keyring] if keyring is not None else [folder / name for folder in folders for name in release.key_names]
    wanted = set(release.fingerprints)
    for place in places:
        if keyring is not None or place.is_file():
            blocks = [block for primary, block in _read(place).items() if primary in wanted]
            if blocks:
                return "".join(armour(block) for block in blocks)
    looked = "\n".join(f"{place}" for place in places)
    raise BuildError(
        f"there is no key here that signs the packages of {release.distribution}",
        details=f"Looked for {' or '.join(release.fingerprints)} in:\n{looked}",
        resolution="Get the key from the distribution's own pages, compare its fingerprint, and set factory.keyring "
        "to the file; or install the package distribution-gpg-keys where there is one.",
    )


def _read(place: Path) -> dict[str, bytes]:
    with storage_errors("reading", place), place.open("rb") as stream:
        data = stream.read(_MOST_BYTES)
    try:
        binary, _ = read_keyring(data)
        return split_keyring(binary)
    except DocumentError as problem:
        raise BuildError(f"{place} is no keyring: {problem.message}", resolution=problem.resolution) from problem
