# SPDX-License-Identifier: Apache-2.0
"""Signed files of checksums, as distributions publish them beside their images.

What was seen of an address is remembered: an older file is refused, however well it is signed, and other bytes than the
last time are told.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

from coppice import atomic
from coppice.errors import BuildError, DefinitionError, DocumentError, OlderListError, StorageError
from coppice.factory.lock import locked
from coppice.formats.checksum_file import MAX_BYTES, read_checksum_file
from coppice.formats.openpgp import read_keyring
from coppice.http.location import show
from coppice.model.checksum import Checksum
from coppice.subscription.openpgp import Keyring

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.definition.model import Start
    from coppice.monitor import Monitor
    from coppice.subscription.openpgp import OpenPgpSignature

_SIGNATURE_BYTES = 64 * 1024


def vouched_for(start: Start, read: Callable[[str, int], bytes], seen: Path, monitor: Monitor) -> Checksum:
    """Return the checksum that the signed file of ``start`` has of its image.

    Args:
        start: Names image, file, signature and keys.
        read: Returns what is at an address, at most so many bytes.
        seen: The directory where it is remembered what was seen.
        monitor: Is told of other bytes than the last time.

    Raises:
        TransferError: The file could not be had.
        TrustError: It is not signed by one of the keys, or is older than one that was seen.
        DocumentError: It is no file of checksums.
        DefinitionError: The keys are none.
        BuildError: It says nothing of the image.
        ToolMissingError: ``gpgv`` is not installed.
    """
    shown = show(start.checksums)
    document = read(start.checksums, MAX_BYTES)
    keyring = _keyring(start)
    if start.signature:
        signature = keyring.verify_detached(document, read(start.signature, _SIGNATURE_BYTES), what=shown)
    else:
        document, signature = keyring.verify_cleartext(document, what=shown)
    names = _names(start)
    summed = {each.name: each.checksum for each in read_checksum_file(document)}
    checksum = next((summed[name] for name in names if summed.get(name) is not None), None)
    if checksum is None:
        raise BuildError(
            f"{shown} has no checksum of {names[0]}",
            details=f"It has: {', '.join(list(summed)[:10])}",
            resolution="Correct start.url, or name the file of checksums that has it.",
        )
    _remember(start, checksum, signature, seen, monitor)
    return checksum


def _keyring(start: Start) -> Keyring:
    try:
        packets, keys = read_keyring(start.key)
    except DocumentError as problem:
        raise DefinitionError(
            f"the file of start.key cannot be used: {problem.message}",
            resolution="Have the publisher's public keys in it, as `gpg --export --armor` writes them.",
        ) from problem
    return Keyring(packets, keys, "start.key")


def _names(start: Start) -> tuple[str, ...]:
    folder = start.checksums.rpartition("/")[0] + "/"
    whole = unquote(start.url)
    last = whole.rpartition("/")[2]
    return (whole.removeprefix(folder), last) if whole.startswith(folder) else (last,)


def _remember(start: Start, checksum: Checksum, signature: OpenPgpSignature, seen: Path, monitor: Monitor) -> None:
    path = seen / f"{hashlib.sha256(start.url.encode()).hexdigest()}.json"
    with locked(seen / ".lock"):
        known = _known(path)
        if known is not None:
            before, at = known
            if signature.signed_at < at or (signature.signed_at == at and checksum != before):
                raise OlderListError(
                    f"{show(start.checksums)} was signed on {signature.signed_at:%Y-%m-%d %H:%M}, "
                    f"and one that was seen before on {at:%Y-%m-%d %H:%M}",
                    details=f"before {before}\nnow    {checksum}",
                    resolution="A mirror may lag behind: try again later, or name another. Nothing was built of it.",
                )
            if checksum != before:
                monitor.message(f"{show(start.url)} has other bytes than the last time: {checksum}, before {before}")
        said = {"url": show(start.url), "checksum": str(checksum), "signed_at": signature.signed_at.isoformat()}
        atomic.write_text(path, json.dumps(said) + "\n")


def _known(path: Path) -> tuple[Checksum, datetime] | None:
    try:
        with atomic.storage_errors("reading", path):
            said = json.loads(path.read_text(encoding="utf-8"))
        return Checksum.parse(said["checksum"]), datetime.fromisoformat(said["signed_at"])
    except StorageError as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            return None
        raise
    except (ValueError, KeyError, TypeError) as problem:
        raise StorageError(
            f"{path} does not tell what was seen",
            resolution="Remove it; what is seen next counts as the first.",
            context={"path": str(path)},
        ) from problem
