# SPDX-License-Identifier: Apache-2.0
"""TLS contexts: the machine's authorities, those that a subscription or a publisher adds, and client certificates.

A context is made once for what it is made of, and anew when the files have changed.
"""

from __future__ import annotations

import re
import ssl
import threading
from typing import TYPE_CHECKING

from coppice.errors import CredentialError, SettingsError, TrustAnchorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.http.credential import ClientCertificate

_FILE_LIMIT_BYTES = 4 * 1024 * 1024
_FILES_LIMIT = 10_000
_ANCHOR_FILE = re.compile(r".+\.(?:pem|crt|cer|\d{1,3})")
_PEM = re.compile(r"-----BEGIN (?:X509 )?CERTIFICATE-----[A-Za-z0-9+/=\s]{1,100000}-----END (?:X509 )?CERTIFICATE-----")


class Contexts:
    """Makes and keeps TLS contexts; threads may share it.

    Args:
        ca_file: PEM file of authorities that are trusted for every server, in addition to the machine's.
    """

    def __init__(self, ca_file: Path | None = None) -> None:
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._made: dict[object, tuple[object, ssl.SSLContext]] = {}

    def get(self, anchors: Path | None = None, certificate: ClientCertificate | None = None) -> ssl.SSLContext:
        """Return a context that verifies servers, and shows ``certificate`` to those that were verified and ask.

        Args:
            anchors: PEM file, or directory in the style of the IGTF, of authorities beside the machine's.
            certificate: Of the client.

        Raises:
            SettingsError: The file of authorities for every server cannot be used.
            TrustAnchorError: ``anchors`` hold no certificate that can be used.
            CredentialError: The client certificate, or its key, cannot be used.
        """
        files = [anchors] if certificate is None else [anchors, certificate.certificate, certificate.key]
        key, states = (anchors, certificate), [_state(path) for path in files]
        with self._lock:
            made = self._made.get(key)
            if made is None or made[0] != states:
                made = self._made[key] = (states, self._make(anchors, certificate))
            return made[1]

    def _make(self, anchors: Path | None, certificate: ClientCertificate | None) -> ssl.SSLContext:
        # Not `ssl.create_default_context`: that writes keys of connections where a variable (SSLKEYLOGFILE) says.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_default_certs()
        if self._ca_file is not None:
            try:
                context.load_verify_locations(cafile=self._ca_file)
            except OSError as problem:
                raise SettingsError(
                    f"the file of trusted authorities {self._ca_file} cannot be used: {problem}",
                    resolution="Name a readable file with certificates in PEM form.",
                ) from problem
        if anchors is not None:
            _add_anchors(context, anchors)
        if certificate is not None:
            _add_certificate(context, certificate)
        return context


def _add_anchors(context: ssl.SSLContext, anchors: Path) -> None:
    seen: set[bytes] = set()
    added = 0
    for der in _certificates(anchors):
        if der in seen:
            continue
        seen.add(der)
        try:
            # One at a time: what OpenSSL cannot read (among two hundred authorities some are odd) costs only itself.
            context.load_verify_locations(cadata=der)
            added += 1
        except ssl.SSLError:
            continue
    if not added:
        raise TrustAnchorError(
            f"{anchors} holds no certificate of an authority that servers could be verified with",
            resolution="Name a PEM file, or a directory with files *.pem or *.0.",
            context={"path": str(anchors)},
        )


def _certificates(anchors: Path) -> Iterator[bytes]:
    """Yield the certificates below ``anchors``, in DER; entries that are none are left out."""
    try:
        is_directory = anchors.is_dir()
        names = sorted(path for path in anchors.iterdir() if _ANCHOR_FILE.fullmatch(path.name)) if is_directory else []
    except OSError as problem:
        raise _unreadable(anchors, problem) from problem
    if not is_directory:
        yield from _certificates_of(anchors)
        return
    for path in names[:_FILES_LIMIT]:
        try:
            yield from _certificates_of(path)
        except TrustAnchorError:
            # A link to nothing, a directory, a file for root alone: it is one authority fewer, which fails closed.
            continue


def _certificates_of(path: Path) -> Iterator[bytes]:
    try:
        if not path.is_file():
            raise TrustAnchorError(f"{path} is no file and no directory of trust anchors", context={"path": str(path)})
        with path.open("rb") as stream:
            text = stream.read(_FILE_LIMIT_BYTES).decode("ascii", errors="replace")
    except (OSError, ValueError) as problem:
        raise _unreadable(path, problem) from problem
    for block in _PEM.findall(text):
        try:
            body = "".join(block.split("-----")[2].split())
            yield ssl.PEM_cert_to_DER_cert(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        except ValueError:
            continue


def _add_certificate(context: ssl.SSLContext, certificate: ClientCertificate) -> None:
    was_asked = False

    def passphrase() -> str:
        # Always given: without it, OpenSSL would ask at the terminal, and wait.
        nonlocal was_asked
        was_asked = True
        return certificate.passphrase or ""

    try:
        context.load_cert_chain(certificate.certificate, certificate.key, passphrase)
    except (OSError, ValueError) as problem:
        if was_asked:
            reason = "the key is encrypted, and " + (
                "the passphrase does not open it" if certificate.passphrase else "no passphrase is named"
            )
        elif isinstance(problem, ssl.SSLError):
            reason = f"it is no certificate with its key, in PEM form ({problem.reason or 'malformed'})"
        else:
            reason = str(problem.strerror) if isinstance(problem, OSError) else "its passphrase is too long"
        raise CredentialError(
            f"the client certificate {certificate.certificate} with the key {certificate.key} cannot be used: {reason}",
            resolution="Name the PEM files of certificate and key, and a file or variable with the passphrase if "
            "the key has one.",
            context={"certificate": str(certificate.certificate), "key": str(certificate.key)},
        ) from None


def _state(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _unreadable(path: Path, problem: OSError | ValueError) -> TrustAnchorError:
    return TrustAnchorError(
        f"the trust anchors {path} cannot be read: {problem}",
        resolution="Check the path, and that Coppice runs as a user who may read it.",
        context={"path": str(path)},
    )
