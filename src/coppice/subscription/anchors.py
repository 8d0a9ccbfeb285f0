# SPDX-License-Identifier: Apache-2.0
"""Trust anchors: the authorities that a subscription believes, with their CRLs and what names they may certify.

They are read from files; the system's own certificates are never looked at. A directory's certificates are read at once
(they are few and short), its CRLs and policies when a path needs them. What was read is kept for as long as no file
changed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from coppice.errors import TrustAnchorError
from coppice.formats.certificates import PARSE_PROBLEMS, quiet, reason, require_readable
from coppice.formats.names import distinguished_name
from coppice.subscription.anchor_files import (
    DEFAULT_LIMITS,
    AnchorFiles,
    AnchorLimits,
    FileKind,
    NamedFile,
    group_files,
    list_entries,
    read_objects,
    state_of,
    unreadable,
)
from coppice.subscription.namespaces import NO_NAMESPACES, Namespaces

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.model.endorser import DistinguishedName

_SHA256 = hashes.SHA256()
_KEPT = 8
_kept: OrderedDict[tuple[Path, AnchorLimits], tuple[object, TrustAnchors]] = OrderedDict()
_keeping = threading.Lock()


class AnchorKind(StrEnum):
    """Where trust anchors come from, and so what they can say."""

    IGTF = "igtf"
    """A directory with namespaces or signing policies, as the grid's authorities distribute it."""
    DIRECTORY = "directory"
    """A directory of certificates and CRLs."""
    BUNDLE = "bundle"
    """A file of authorities' certificates, perhaps with CRLs."""
    PINNED = "pinned"
    """A file with an endorser's own certificate: the signer must be exactly that one, and nobody can revoke it."""


@dataclass(frozen=True, kw_only=True)
class TrustAnchors:
    """What a subscription's anchors file or directory holds.

    Attributes:
        certificates: The anchors, each once.
        path: Where they were read.
        kind: What they are.
        crls: The certificate revocation lists that came with the certificates, not judged yet.
        problems: Files of certificates, or parts of them, that were skipped, and why.
        files: The other files of a directory; None: there are none.
        held: For each file of certificates, what was found in it and what is wrong with it.
    """

    certificates: tuple[x509.Certificate, ...]
    path: Path
    kind: AnchorKind = AnchorKind.BUNDLE
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    problems: tuple[str, ...] = ()
    files: AnchorFiles | None = None
    held: Mapping[NamedFile, HeldCertificates] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> Mapping[DistinguishedName, tuple[x509.Certificate, ...]]:
        """The anchors by their subjects; two authorities, or two certificates of one, may share a name."""
        found: dict[DistinguishedName, tuple[x509.Certificate, ...]] = {}
        for certificate in self.certificates:
            name = distinguished_name(certificate.subject)
            found[name] = (*found.get(name, ()), certificate)
        return found

    def named(self, name: DistinguishedName) -> tuple[x509.Certificate, ...]:
        """Return the anchors of that name."""
        return self.by_name.get(name, ())

    def holds(self, certificate: x509.Certificate) -> bool:
        """Tell whether exactly this certificate is an anchor."""
        return certificate in self.named(distinguished_name(certificate.subject))

    def crls_of(self, authority: DistinguishedName) -> tuple[x509.CertificateRevocationList, ...]:
        """Return the CRLs that bear the name of ``authority``, not judged yet."""
        own = tuple(crl for crl in self.crls if distinguished_name(crl.issuer) == authority)
        return own if self.files is None else (*own, *self.files.crls_of(authority))

    @cached_property
    def namespaces(self) -> Namespaces:
        """Which names the authorities may certify, as the directory says it."""
        if self.files is None or self.kind is not AnchorKind.IGTF:
            return NO_NAMESPACES
        return Namespaces.of(self.files.policies(), self._stems())

    def _stems(self) -> dict[str, tuple[DistinguishedName, ...]]:
        """Return which authorities' certificates have which names of files."""
        found: dict[str, tuple[DistinguishedName, ...]] = {}
        for file, held in self.held.items():
            subjects = tuple(distinguished_name(one.subject) for one in held.authorities)
            for stem in file.stems:
                found[stem] = (*found.get(stem, ()), *subjects)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCertificates:
    """What was found in one file of certificates.

    Attributes:
        authorities: Certificates of authorities.
        others: Certificates that may not issue any.
        crls: That stood among them.
        problems: What cannot be used.
    """

    authorities: tuple[x509.Certificate, ...] = ()
    others: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    problems: tuple[str, ...] = ()


class AnchorShelf:
    """Trust anchors for one run: each path is read once, so that all lists of the run are judged by the same."""

    def __init__(self, limits: AnchorLimits = DEFAULT_LIMITS) -> None:
        """Begin with nothing read."""
        self._limits = limits
        self._read: dict[Path, TrustAnchors | TrustAnchorError] = {}
        self._lock = threading.Lock()

    def load(self, path: Path) -> TrustAnchors:
        """Return the trust anchors at ``path``, as they were when this run first asked.

        Raises:
            TrustAnchorError: Nothing there is a usable anchor.
        """
        with self._lock:
            if path not in self._read:
                try:
                    self._read[path] = load_anchors(path, limits=self._limits)
                except TrustAnchorError as problem:
                    self._read[path] = problem
            found = self._read[path]
        if isinstance(found, TrustAnchorError):
            raise TrustAnchorError(
                found.message, details=found.details, resolution=found.resolution, context=found.context
            ) from found
        return found


def load_anchors(path: Path, *, limits: AnchorLimits = DEFAULT_LIMITS) -> TrustAnchors:
    """Return the trust anchors at ``path``: a directory, a file of PEM blocks, or a DER file.

    In a directory, ``*.pem``, ``*.crt``, ``*.cer``, ``*.der`` and ``*.0`` (any digits) hold certificates, ``*.r0``,
    ``*.crl`` and ``*.crl.pem`` CRLs, ``*.namespaces`` and ``*.signing_policy`` what names an authority may certify. A
    file whose certificates are all end entities' pins those. What cannot be used is skipped and reported.

    Raises:
        TrustAnchorError: Nothing there is a usable anchor.
    """
    try:
        entries = list_entries(path, limits) if path.is_dir() else None
        state: object = state_of(path) if entries is None else entries
    except OSError as problem:
        raise unreadable(path, problem) from problem
    key = (path, limits)
    with _keeping:
        kept = _kept.get(key)
        if kept is not None and kept[0] == state:
            _kept.move_to_end(key)
            return kept[1]
    anchors = _read(path, None if entries is None else group_files(path, entries), limits)
    with _keeping:
        _kept[key] = (state, anchors)
        _kept.move_to_end(key)
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return anchors


def _read(path: Path, files: tuple[NamedFile, ...] | None, limits: AnchorLimits) -> TrustAnchors:
    single = NamedFile(path=path, names=(path.name,), kind=FileKind.CERTIFICATE)
    wanted = (single,) if files is None else tuple(file for file in files if file.kind is FileKind.CERTIFICATE)
    with quiet():
        held = {file: _held(file, limits) for file in wanted}
    kind = _kind(files, held)
    if kind is AnchorKind.PINNED:
        held = {file: replace(each, authorities=each.others, others=()) for file, each in held.items()}
    certificates = {one: None for each in held.values() for one in each.authorities}
    crls = {one.fingerprint(_SHA256): one for each in held.values() for one in each.crls}
    problems = [f"{file.path}: {said}" for file, each in held.items() for said in each.problems]
    problems += [
        f"{file.path}: {distinguished_name(one.subject)} is no authority"
        for file, each in held.items()
        for one in each.others
    ]
    if not certificates:
        raise TrustAnchorError(
            f"no usable trust anchor at {path}",
            details="\n".join(problems[:20]) or "There is no certificate file.",
            resolution="Name a PEM file, or a directory of *.pem files, with the authority's certificate and its CRL.",
            context={"path": str(path)},
        )
    return TrustAnchors(
        certificates=tuple(certificates),
        path=path,
        kind=kind,
        crls=tuple(crls.values()),
        problems=tuple(problems),
        files=None if files is None else AnchorFiles(files, limits),
        held=held,
    )


def _kind(files: tuple[NamedFile, ...] | None, held: Mapping[NamedFile, HeldCertificates]) -> AnchorKind:
    if files is not None:
        policies = {FileKind.NAMESPACES, FileKind.SIGNING_POLICY}
        return AnchorKind.IGTF if any(file.kind in policies for file in files) else AnchorKind.DIRECTORY
    only = next(iter(held.values()))
    return AnchorKind.PINNED if only.others and not only.authorities else AnchorKind.BUNDLE


def _held(file: NamedFile, limits: AnchorLimits) -> HeldCertificates:
    found, problems = read_objects(file, limits)
    authorities: list[x509.Certificate] = []
    others: list[x509.Certificate] = []
    crls: list[x509.CertificateRevocationList] = []
    for one in found:
        if isinstance(one, x509.CertificateRevocationList):
            crls.append(one)
            continue
        try:
            require_readable(one)
        except PARSE_PROBLEMS as problem:
            problems.append(f"{distinguished_name(one.subject)}: {reason(problem)}")
            continue
        (authorities if is_authority(one) else others).append(one)
    return HeldCertificates(
        authorities=tuple(authorities), others=tuple(others), crls=tuple(crls), problems=tuple(problems)
    )


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether ``certificate`` says that its holder may issue others (RFC 5280, 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
