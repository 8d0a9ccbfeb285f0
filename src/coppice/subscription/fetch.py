# SPDX-License-Identifier: Apache-2.0
"""Fetch a list's bytes, or learn that they are as they were; what they are worth is judged elsewhere."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coppice.errors import (
    DocumentError,
    InputError,
    MalformedListError,
    TransferError,
    TransferTooLargeError,
    UnreachableError,
    UnsignedListError,
)
from coppice.formats.oci import digest_of, image_list_layer, parse_reference, read_manifest
from coppice.http import Fetched, Registry, Validators, resolve_credential
from coppice.http.location import show
from coppice.subscription.model import Subscription

if TYPE_CHECKING:
    from coppice.formats.oci import OciReference
    from coppice.http import Client, Credential

_OCI_SCHEMES = frozenset({"oci", "oci+http"})
_SECOND_NS = 1_000_000_000
_COARSE_TICK_NS = 2 * _SECOND_NS
_FINE_TICK_NS = _SECOND_NS // 10


def fetch_list(
    source: Subscription | str,
    client: Client,
    limit_bytes: int,
    *,
    validators: Validators | None = None,
    credential: Credential | None = None,
    server_anchors: Path | None = None,
) -> Fetched:
    """Return what lies at ``source``, unless it is what it was when ``validators`` were given.

    Args:
        source: A subscription, with its credential and server anchors; or an address: ``https://``, ``http://``,
            ``file://``, ``oci://`` (``oci+http://`` for a registry on loopback without TLS).
        client: For all but files.
        limit_bytes: A longer list is refused.
        validators: What was given with the bytes that the caller still has, for this very address; None: it is fetched
            in any case.
        credential: Shown to the server, instead of the subscription's.
        server_anchors: Authorities that the server's certificate may come from, instead of the subscription's.

    Raises:
        TransferError: It could not be had, whole.
        UnsignedListError: It is empty.
        MalformedListError: What lies in the registry is no image list.
        CredentialError: The credential cannot be had, or cannot be used there.
        TrustAnchorError: The server anchors cannot be used.
    """
    if isinstance(source, Subscription):
        uri = source.uri
        if credential is None and source.credential is not None:
            credential = resolve_credential(source.credential)
        server_anchors = server_anchors or source.server_anchors
    else:
        uri = source
    try:
        parts = urlsplit(uri)
    except ValueError as problem:
        raise _not_fetchable(uri) from problem
    if parts.scheme in {"https", "http"} and parts.netloc:
        found = client.get_if_changed(
            uri, limit_bytes=limit_bytes, validators=validators, credential=credential, server_anchors=server_anchors
        )
    elif parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path.startswith("/"):
        found = _read_file(Path(unquote(parts.path)), limit_bytes, validators)
    elif parts.scheme in _OCI_SCHEMES:
        reference = _reference(uri)
        registry = Registry(client, reference, credential=credential, server_anchors=server_anchors)
        found = _pull(registry, reference, limit_bytes, validators)
    else:
        raise _not_fetchable(uri)
    if found.body is not None and not found.body:
        raise UnsignedListError(f"what lies at {show(uri)} is empty: no list, and no signature")
    return found


def _not_fetchable(uri: str) -> TransferError:
    return TransferError(
        f"a list cannot be fetched from {show(uri)}",
        resolution="Use an address with https://, http://, file:/// or oci://.",
    )


def _read_file(path: Path, limit_bytes: int, validators: Validators | None) -> Fetched:
    """Read a file, unless it is the one that was read before.

    What identifies its state changes with every write and every replacement, whatever the clock does in between: the
    inode, the size, and both times to the nanosecond.
    """
    try:
        # Not to wait for a writer, should it be a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                raise UnreachableError(f"{path} is no regular file", context={"path": str(path)})
            found = state_of_file(before)
            if validators is not None and found and validators.etag == found.etag:
                return Fetched(body=None, validators=found)
            data = stream.read(limit_bytes + 1)
            after = state_of_file(os.fstat(handle))
    except (OSError, ValueError) as problem:
        raise UnreachableError(f"the list {path} cannot be read: {problem}", context={"path": str(path)}) from problem
    if len(data) > limit_bytes:
        raise TransferTooLargeError(f"{path} is longer than {limit_bytes} bytes", context={"path": str(path)})
    # Written to while it was read: what was read is judged as it is, and read again the next time.
    return Fetched(body=data, validators=found if found == after else Validators())


def state_of_file(found: os.stat_result) -> Validators:
    """Return what a file's state is called, or nothing as long as it may change once more under the same name.

    A file system's clock ticks: two writes within one tick bear the same time. Where it counts whole seconds, a tick is
    a second, or two.
    """
    tick_ns = _COARSE_TICK_NS if found.st_ctime_ns % _SECOND_NS == 0 else _FINE_TICK_NS
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < tick_ns:
        return Validators()
    numbers = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return Validators(etag='"file-' + "-".join(f"{number:x}" for number in numbers) + '"')


def _reference(uri: str) -> OciReference:
    try:
        return parse_reference(uri)
    except InputError as problem:
        raise TransferError(
            f"a list cannot be fetched from {show(uri)}", details=problem.message, resolution=problem.resolution
        ) from problem


def _pull(registry: Registry, reference: OciReference, limit_bytes: int, validators: Validators | None) -> Fetched:
    payload = registry.manifest(reference.digest or reference.tag or "", digest=reference.digest).body
    found = Validators(etag=f'"{digest_of(payload)}"')
    if validators is not None and validators.etag == found.etag:
        return Fetched(body=None, validators=found)
    try:
        layer = image_list_layer(read_manifest(payload))
    except DocumentError as problem:
        raise MalformedListError(
            f"what lies at {reference} is no image list: {problem.message}", context={"uri": str(reference)}
        ) from problem
    if layer.size_bytes > limit_bytes:
        raise TransferTooLargeError(
            f"the list at {reference} is longer than {limit_bytes} bytes", context={"uri": str(reference)}
        )
    return Fetched(body=registry.blob(layer, limit_bytes=limit_bytes), validators=found)
