# SPDX-License-Identifier: Apache-2.0
"""Trust anchors and revocation lists, read from files. The system's own certificates are never looked at."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from coppice.errors import TrustAnchorError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----[\s\S]*?-----END \1-----")
_ANCHOR_NAME = re.compile(r".*\.(pem|crt|cer|\d)")
_CRL_NAME = re.compile(r".*\.(r\d|crl|crl\.pem)")
_CERTIFICATE_LABELS = {b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"}
_MAX_FILE_BYTES = 64 * 1024 * 1024
_PROBLEMS = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchors:
    """What a subscription's anchors file or directory holds.

    Attributes:
        certificates: The anchors, each once.
        crls: The certificate revocation lists, not judged yet.
        problems: Entries that were skipped, and why.
        path: Where they were read.
    """

    certificates: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...]
    problems: tuple[str, ...]
    path: Path


def load_anchors(path: Path) -> TrustAnchors:
    """Return the trust anchors and CRLs at ``path``: a file of PEM blocks, a DER file, or a directory of such files.

    In a directory, ``*.pem``, ``*.crt``, ``*.cer`` and ``*.0`` are anchors, ``*.r0``, ``*.crl`` and ``*.crl.pem`` are
    CRLs. What cannot be read is skipped and reported.

    Raises:
        TrustAnchorError: Nothing there is a usable anchor.
    """
    certificates: dict[bytes, x509.Certificate] = {}
    crls: dict[bytes, x509.CertificateRevocationList] = {}
    problems: list[str] = []
    for file in _files(path):
        try:
            found = list(_objects(_read(file)))
        except OSError as problem:
            problems.append(f"{file}: {problem.strerror or problem}")
            continue
        except _PROBLEMS as problem:
            problems.append(f"{file}: {str(problem)[:200]}")
            continue
        for entry in found:
            if isinstance(entry, x509.Certificate):
                certificates[entry.tbs_certificate_bytes + entry.signature] = entry
            elif isinstance(entry, x509.CertificateRevocationList):
                crls[entry.tbs_certlist_bytes + entry.signature] = entry
            else:
                problems.append(f"{file}: {entry}")
        if not found:
            problems.append(f"{file}: neither a certificate nor a CRL is in it")
    if not certificates:
        raise TrustAnchorError(
            f"no usable trust anchor at {path}",
            details="\n".join(problems) or "There is no certificate file.",
            resolution="Name a PEM file, or a directory of *.pem files, with the authority's certificate and its CRL.",
            context={"path": str(path)},
        )
    return TrustAnchors(
        certificates=tuple(certificates.values()), crls=tuple(crls.values()), problems=tuple(problems), path=path
    )


def _files(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        return [
            Path(entry.path)
            for entry in sorted(os.scandir(path), key=lambda entry: entry.name)
            if _ANCHOR_NAME.fullmatch(entry.name) or _CRL_NAME.fullmatch(entry.name)
        ]
    except OSError as problem:
        raise TrustAnchorError(
            f"the trust anchors at {path} cannot be read: {problem.strerror}", context={"path": str(path)}
        ) from problem


def _read(file: Path) -> bytes:
    if file.exists() and not file.is_file():
        raise ValueError("not a regular file")
    with file.open("rb") as stream:
        data = stream.read(_MAX_FILE_BYTES + 1)
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError(f"longer than {_MAX_FILE_BYTES} bytes")
    return data


def _objects(data: bytes) -> Iterator[x509.Certificate | x509.CertificateRevocationList | str]:
    blocks = list(_BLOCK.finditer(data))
    if not blocks and data:
        yield _from_der(data)
    for number, block in enumerate(blocks, 1):
        label = block.group(1)
        try:
            if label in _CERTIFICATE_LABELS:
                yield _checked(x509.load_pem_x509_certificate(block.group()))
            elif label == b"X509 CRL":
                yield x509.load_pem_x509_crl(block.group())
        except _PROBLEMS as problem:
            yield f"block {number}: {str(problem)[:200]}"


def _from_der(data: bytes) -> x509.Certificate | x509.CertificateRevocationList:
    try:
        return _checked(x509.load_der_x509_certificate(data))
    except _PROBLEMS:
        return x509.load_der_x509_crl(data)


def _checked(certificate: x509.Certificate) -> x509.Certificate:
    # Parsing is lazy: what is needed later is asked now, so that a broken anchor is skipped here.
    certificate.public_key()
    _ = certificate.subject, certificate.issuer, certificate.extensions, certificate.not_valid_after_utc
    return certificate
