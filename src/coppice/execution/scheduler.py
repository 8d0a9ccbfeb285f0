# SPDX-License-Identifier: Apache-2.0
"""Reach the scheduler of a Dask cluster: by TLS with certificates on both sides, or on this machine.

Whoever can speak to a scheduler can run any program on its workers.
"""

from __future__ import annotations

import ipaddress
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coppice.errors import ClusterError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client
    from distributed.security import Security

    from coppice.settings.model import ClusterSettings

_FILES = ("ca_file", "certificate_file", "key_file")


@contextmanager
def connect(settings: ClusterSettings) -> Iterator[Client]:
    """Yield a client of the scheduler.

    Raises:
        SettingsError: The address is none, or not one to be used without TLS, or the files for TLS are not all there.
        ClusterError: It cannot be reached, or Dask is not installed.
    """
    address = check_address(settings)
    try:
        from distributed import Client
    except ImportError as problem:
        raise ClusterError(
            "builds on a cluster need the package distributed, which is not installed",
            resolution="Install it here and on the workers: pip install 'coppice[cluster]'.",
        ) from problem
    # What it has to say of itself in passing is none of the reader's business: what fails is told by errors.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    security = _security(settings) if address.startswith("tls:") else None
    try:
        client = Client(
            address,
            timeout=settings.connect_timeout_seconds,
            security=security,
            set_as_default=False,
            name="coppice",
        )
    except (OSError, TimeoutError, ValueError, RuntimeError) as problem:
        raise ClusterError(
            f"the cluster's scheduler at {address} cannot be reached",
            details=f"{type(problem).__name__}: {problem}",
            resolution="See that it runs and that `[cluster]` names it, and with TLS, certificates of its authority.",
            context={"scheduler": address},
        ) from problem
    try:
        yield client
    finally:
        client.close(timeout=5)


def check_address(settings: ClusterSettings) -> str:
    """Return the scheduler's address, if it is one that may be used.

    Raises:
        SettingsError: It may not.
    """
    if settings.scheduler is None:
        raise SettingsError(
            "there is no cluster: `cluster.scheduler` is not set",
            resolution='Set `scheduler = "tls://host:8786"` in `[cluster]`, or build here.',
        )
    scheme, host = _parts(settings.scheduler)
    if not host:
        raise SettingsError(
            f"{settings.scheduler[:200]!r} is no address of a scheduler",
            resolution="Write tls://host:port, or tcp://127.0.0.1:port for one on this machine.",
        )
    if scheme == "tcp" and not _is_here(host):
        raise SettingsError(
            f"the scheduler {settings.scheduler} is on another machine, and its address is not one of TLS",
            resolution="Whoever can reach a scheduler without TLS can run programs on its workers. Start it with "
            "certificates (dask scheduler --tls-ca-file … --tls-cert … --tls-key …), and write tls://.",
        )
    return settings.scheduler


def _parts(address: str) -> tuple[str, str]:
    """Return scheme and host; no host: it is no such address."""
    try:
        parts = urlsplit(address)
        is_whole = bool(parts.port) and not (parts.path or parts.query or parts.fragment or parts.username)
    except ValueError:
        return "", ""
    known = parts.scheme in {"tls", "tcp"}
    return parts.scheme, (parts.hostname or "") if known and is_whole else ""


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _security(settings: ClusterSettings) -> Security:
    from distributed.security import Security

    missing = [f"cluster.{name}" for name in _FILES if getattr(settings, name) is None]
    if missing:
        raise SettingsError(
            f"the cluster's scheduler speaks TLS, and {', '.join(missing)} is not set",
            resolution="Both sides show certificates of the cluster's own authority: set all three files.",
        )
    for name in _FILES:
        path = getattr(settings, name)
        try:
            path.open("rb").close()
        except OSError as problem:
            raise SettingsError(f"`cluster.{name}` cannot be read: {path}: {problem.strerror}") from problem
    return Security(
        require_encryption=True,
        tls_ca_file=str(settings.ca_file),
        tls_client_cert=str(settings.certificate_file),
        tls_client_key=str(settings.key_file),
    )
