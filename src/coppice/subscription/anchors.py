# SPDX-License-Identifier: Apache-2.0
"""Trust anchors: the authorities that a subscription believes, with their CRLs and what names they may certify.

They are read from files; the system's own certificates are never looked at. Of a directory only what a path needs is
read. What was read is kept for as long as no file changed.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from coppice.errors import TrustAnchorError
from coppice.formats.certificates import DAMAGED_CRL
from coppice.formats.names import distinguished_name
from coppice.subscription.anchor_contents import AnchorContents, HeldCertificates, problems_of, read_held
from coppice.subscription.anchor_files import (
    DEFAULT_LIMITS,
    AnchorLimits,
    FileKind,
    NamedFile,
    group_files,
    list_entries,
    state_of,
    unreadable,
)
from coppice.subscription.namespaces import NO_NAMESPACES, Namespaces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cryptography import x509

    from coppice.model.endorser import DistinguishedName

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


class TrustAnchors:
    """What a subscription's anchors file or directory holds. It does not change; what of it is read is kept.

    Attributes:
        path: Where it is.
        kind: What it is.
        contents: Of a directory; None: there is none.
        state: A digest that changes when a file there does; empty when they were not read from files.
    """

    def __init__(
        self,
        *,
        path: Path,
        certificates: Iterable[x509.Certificate] = (),
        crls: Iterable[x509.CertificateRevocationList] = (),
        problems: Iterable[str] = (),
        kind: AnchorKind = AnchorKind.BUNDLE,
        contents: AnchorContents | None = None,
        state: str = "",
    ) -> None:
        """Hold what is given; and of ``contents``, if there are any, all certificates."""
        self.path = path
        self.kind = kind
        self.contents = contents
        self.state = state
        self._given = HeldCertificates(authorities=tuple(certificates), crls=tuple(crls), problems=tuple(problems))
        self._namespaces: dict[DistinguishedName, Namespaces] = {}

    @cached_property
    def held(self) -> Mapping[NamedFile, HeldCertificates]:
        """For each file of certificates, what was found in it and what is wrong with it."""
        if self.contents is not None:
            return self.contents.held()
        return {NamedFile(path=self.path, names=(self.path.name,), kind=FileKind.CERTIFICATE): self._given}

    @cached_property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """The anchors, each once."""
        return tuple(dict.fromkeys(one for each in self.held.values() for one in each.authorities))

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """Files of certificates, or parts of them, that were skipped, and why."""
        return tuple(f"{file.path}: {said}" for file, each in self.held.items() for said in problems_of(each))

    @cached_property
    def by_name(self) -> Mapping[DistinguishedName, tuple[x509.Certificate, ...]]:
        """The anchors by their subjects; two authorities, or two certificates of one, may share a name."""
        found: dict[DistinguishedName, tuple[x509.Certificate, ...]] = {}
        for certificate in self.certificates:
            name = distinguished_name(certificate.subject)
            found[name] = (*found.get(name, ()), certificate)
        return found

    def named(self, name: x509.Name) -> tuple[x509.Certificate, ...]:
        """Return the anchors of that name."""
        found = None if self.contents is None else self.contents.named(name)
        return self.by_name.get(distinguished_name(name), ()) if found is None else found

    def holds(self, certificate: x509.Certificate) -> bool:
        """Tell whether exactly this certificate is an anchor."""
        return certificate in self.named(certificate.subject)

    def crls_of(self, authority: DistinguishedName) -> tuple[x509.CertificateRevocationList, ...]:
        """Return the CRLs that bear the name of ``authority``, not judged yet."""
        if self.contents is not None:
            return self.contents.crls_of(authority)
        return tuple(crl for crl in self._given.crls if distinguished_name(crl.issuer) == authority)

    def unusable_crls_of(self, authority: x509.Name) -> tuple[str, ...]:
        """Return what cannot be read and may be a CRL of ``authority``, and why."""
        if self.contents is not None:
            return self.contents.unusable_crls_of(authority)
        return tuple(f"{self.path}: {each}" for each in self._given.problems if each.startswith(DAMAGED_CRL))

    @property
    def have_policies(self) -> bool:
        """Whether there is any file of namespaces or signing policies, be it malformed."""
        return self.kind is AnchorKind.IGTF

    def namespaces_of(self, authority: x509.Name) -> Namespaces:
        """Return which names ``authority`` may certify, as the directory says it; others' rules may be left out."""
        if self.contents is None or self.kind is not AnchorKind.IGTF:
            return NO_NAMESPACES
        name = distinguished_name(authority)
        if name not in self._namespaces:
            policies = self.contents.policies_about(authority)
            self._namespaces[name] = Namespaces.of(policies, self.contents.subjects_of)
        return self._namespaces[name]

    @cached_property
    def namespaces(self) -> Namespaces:
        """Which names all authorities may certify."""
        if self.contents is None or self.kind is not AnchorKind.IGTF:
            return NO_NAMESPACES
        return Namespaces.of(self.contents.policies(), self.contents.subjects_of)


class AnchorShelf:
    """Trust anchors for one run: each path is read once, so that all lists of the run are judged by the same."""

    def __init__(self, limits: AnchorLimits = DEFAULT_LIMITS) -> None:
        """Begin with nothing read."""
        self._limits = limits
        self._read: dict[Path, TrustAnchors | TrustAnchorError] = {}
        self._lock = threading.Lock()

    def load(self, path: Path | None) -> TrustAnchors:
        """Return the trust anchors at ``path``, as they were when this run first asked.

        Raises:
            TrustAnchorError: Nothing there is a usable anchor.
        """
        if path is None:
            raise _none_named()
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


def load_anchors(path: Path | None, *, limits: AnchorLimits = DEFAULT_LIMITS) -> TrustAnchors:
    """Return the trust anchors at ``path``: a directory, a file of PEM blocks, or a DER file.

    In a directory, ``*.pem``, ``*.crt``, ``*.cer``, ``*.der`` and ``*.0`` (any digits) hold certificates, ``*.r0``,
    ``*.crl`` and ``*.crl.pem`` CRLs, ``*.namespaces`` and ``*.signing_policy`` what names an authority may certify. A
    file that holds end entities' certificates, and nothing else, pins those. What else cannot be used is skipped and
    reported.

    Raises:
        TrustAnchorError: Nothing there is a usable anchor, or no place is named.
    """
    if path is None:
        raise _none_named()
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
    anchors = _of_file(path, limits) if entries is None else _of_directory(path, group_files(path, entries), limits)
    anchors.state = hashlib.sha256(repr((str(path), state)).encode("utf-8", "backslashreplace")).hexdigest()
    with _keeping:
        _kept[key] = (state, anchors)
        _kept.move_to_end(key)
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return anchors


def forget_anchors() -> None:
    """Forget what was read in this process; for measuring."""
    with _keeping:
        _kept.clear()


def _of_directory(path: Path, files: tuple[NamedFile, ...], limits: AnchorLimits) -> TrustAnchors:
    contents = AnchorContents(files, limits)
    policies = contents.of_kind(FileKind.NAMESPACES, FileKind.SIGNING_POLICY)
    anchors = TrustAnchors(path=path, kind=AnchorKind.IGTF if policies else AnchorKind.DIRECTORY, contents=contents)
    if not contents.has_authority():
        raise _no_anchor(path, anchors.problems)
    return anchors


def _of_file(path: Path, limits: AnchorLimits) -> TrustAnchors:
    held = read_held(NamedFile(path=path, names=(path.name,), kind=FileKind.CERTIFICATE), limits)
    # Nobody can revoke who is pinned: a bundle whose authority is damaged, or a CRL beside, was not meant so.
    if held.others and not (held.authorities or held.crls or held.problems):
        return TrustAnchors(path=path, kind=AnchorKind.PINNED, certificates=dict.fromkeys(held.others))
    problems = problems_of(held)
    if not held.authorities:
        raise _no_anchor(path, tuple(f"{path}: {said}" for said in problems))
    return TrustAnchors(path=path, certificates=dict.fromkeys(held.authorities), crls=held.crls, problems=problems)


def _none_named() -> TrustAnchorError:
    return TrustAnchorError(
        "no trust anchors are named", resolution="Name a PEM file or a directory: --anchors, or --set anchors=PATH."
    )


def _no_anchor(path: Path, problems: tuple[str, ...]) -> TrustAnchorError:
    return TrustAnchorError(
        f"no usable trust anchor at {path}",
        details="\n".join(problems[:20]) or "There is no certificate file.",
        resolution="Name a PEM file, or a directory of *.pem files, with the authority's certificate and its CRL.",
        context={"path": str(path)},
    )
