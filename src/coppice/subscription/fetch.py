# SPDX-License-Identifier: Apache-2.0
"""Fetch a list's bytes; what they are worth is judged elsewhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coppice.errors import TransferError, TransferTooLargeError, UnreachableError, UnsignedListError
from coppice.http.location import show

if TYPE_CHECKING:
    from coppice.http import Client


def fetch_list(uri: str, client: Client, limit_bytes: int) -> bytes:
    """Return what lies at ``uri`` (``https://``, ``http://`` or ``file://``).

    Args:
        uri: Where the list is.
        client: For http and https.
        limit_bytes: Longer answers are refused.

    Raises:
        TransferError: It could not be had, whole.
        UnsignedListError: It is empty.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as problem:
        raise _not_fetchable(uri) from problem
    if parts.scheme in {"https", "http"} and parts.netloc:
        data = client.get_bytes(uri, limit_bytes=limit_bytes)
    elif parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path.startswith("/"):
        data = _read_file(Path(unquote(parts.path)), limit_bytes)
    else:
        raise _not_fetchable(uri)
    if not data:
        raise UnsignedListError(f"what lies at {show(uri)} is empty: no list, and no signature")
    return data


def _not_fetchable(uri: str) -> TransferError:
    return TransferError(
        f"a list cannot be fetched from {show(uri)}", resolution="Use an address with https://, http:// or file:///."
    )


def _read_file(path: Path, limit_bytes: int) -> bytes:
    try:
        # Not to wait for a writer, should it be a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UnreachableError(f"{path} is no regular file", context={"path": str(path)})
            data = stream.read(limit_bytes + 1)
    except (OSError, ValueError) as problem:
        raise UnreachableError(f"the list {path} cannot be read: {problem}", context={"path": str(path)}) from problem
    if len(data) > limit_bytes:
        raise TransferTooLargeError(f"{path} is longer than {limit_bytes} bytes", context={"path": str(path)})
    return data
