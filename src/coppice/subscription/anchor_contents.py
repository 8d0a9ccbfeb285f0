# SPDX-License-Identifier: Apache-2.0
"""What is in the files of a directory of trust anchors, each read when it is needed, and once.

A certificate is found by the hash of its subject, which grid directories have as names of files; where a file has no
such name, or none of that name is there, all are read. So what was not found was looked for everywhere.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography import x509

from coppice.errors import DocumentError
from coppice.formats.certificates import DAMAGED_CRL, PARSE_PROBLEMS, crl_issuer, quiet, reason, require_readable
from coppice.formats.names import distinguished_name, subject_hashes
from coppice.formats.namespaces import named_issuers, read_namespaces, read_signing_policy
from coppice.subscription.anchor_files import DEFAULT_LIMITS, AnchorLimits, FileKind, NamedFile, read_file, read_objects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.formats.namespaces import NamespaceRule
    from coppice.model.endorser import DistinguishedName

_HASHED = re.compile(r"[0-9a-f]{8}")
_UNUSED_CRL = "a CRL in a file of certificates is not used; its name must end in .r0 or .crl"
_WIDE = re.compile(rb"[\x1c\x1e]")
"""What is in DER where a string has more than one byte a letter (UniversalString, BMPString)."""
_PLAIN = re.compile(r"[A-Za-z0-9 ._:-]+")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """What a namespaces or signing policy file says.

    Attributes:
        file: Which.
        rules: In their order; none when it is malformed.
        problem: Why it cannot be obeyed; empty: it can.
        about: The authorities that it is about, as far as can be told when it is malformed.
    """

    file: NamedFile
    rules: tuple[NamespaceRule, ...] = ()
    problem: str = ""
    about: frozenset[DistinguishedName] = frozenset()


class AnchorContents:
    """What is in a directory's files. Safe between threads."""

    def __init__(self, files: tuple[NamedFile, ...], limits: AnchorLimits = DEFAULT_LIMITS) -> None:
        """Begin with nothing read."""
        self.files = files
        self._limits = limits
        self._lock = threading.RLock()
        self._held: dict[NamedFile, HeldCertificates] = {}
        self._crls: dict[NamedFile, HeldCertificates] = {}
        self._policies: dict[NamedFile, PolicyFile] = {}

    def of_kind(self, *kinds: FileKind) -> tuple[NamedFile, ...]:
        """Return the files of these kinds."""
        return tuple(file for file in self.files if file.kind in kinds)

    def held_in(self, file: NamedFile) -> HeldCertificates:
        """Return what is in a file of certificates. A CRL in it is not used: it would have to be looked for in all."""
        with self._lock:
            if file not in self._held:
                found = read_held(file, self._limits)
                if found.crls:
                    found = replace(found, crls=(), problems=(*found.problems, _UNUSED_CRL))
                self._held[file] = found
            return self._held[file]

    def held(self) -> dict[NamedFile, HeldCertificates]:
        """Return what is in all files of certificates."""
        # The locks in the order in which every other use takes them.
        with self._lock, quiet():
            return {file: self.held_in(file) for file in self.of_kind(FileKind.CERTIFICATE)}

    def has_authority(self) -> bool:
        """Tell whether there is any authority; no more is read than that needs."""
        return any(self.held_in(file).authorities for file in self.of_kind(FileKind.CERTIFICATE))

    def named(self, name: x509.Name) -> tuple[x509.Certificate, ...] | None:
        """Return the authorities of that name, by the names of files; None: these do not tell."""
        if self._by_hash is None:
            return None
        wanted = distinguished_name(name)
        files = dict.fromkeys(file for each in subject_hashes(name) for file in self._by_hash.get(each, ()))
        found = dict.fromkeys(one for file in files for one in self.held_in(file).authorities)
        return tuple(one for one in found if distinguished_name(one.subject) == wanted) or None

    def subjects_of(self, stems: frozenset[str]) -> frozenset[DistinguishedName]:
        """Return the authorities in files with one of these names, whatever their ending."""
        files = [file for file in self.of_kind(FileKind.CERTIFICATE) if file.stems & stems]
        return frozenset(distinguished_name(one.subject) for file in files for one in self.held_in(file).authorities)

    def _stems_of(self, authority: x509.Name) -> frozenset[str]:
        hashes = frozenset(subject_hashes(authority))
        if self._by_hash is not None:
            files = {file for each in hashes for file in self._by_hash.get(each, ())}
        else:
            wanted = distinguished_name(authority)
            files = {
                file
                for file, held in self.held().items()
                if any(distinguished_name(one.subject) == wanted for one in held.authorities)
            }
        return hashes.union(*(file.stems for file in files))

    @cached_property
    def _by_hash(self) -> Mapping[str, list[NamedFile]] | None:
        """The files of certificates by the hashes that are their names; None: one of them has no such name."""
        found: dict[str, list[NamedFile]] = defaultdict(list)
        for file in self.of_kind(FileKind.CERTIFICATE):
            hashes = [stem for stem in file.stems if _HASHED.fullmatch(stem)]
            if not hashes:
                return None
            for each in hashes:
                found[each].append(file)
        return found

    def crls_of(self, authority: DistinguishedName) -> tuple[x509.CertificateRevocationList, ...]:
        """Return the CRLs that bear the name of ``authority``. Only these are read whole."""
        with self._lock:
            files = [file for file, names in self._issuers.items() if any(_may_be(authority, each) for each in names)]
            candidates = [crl for file in files for crl in self.crls_in(file).crls]
        return tuple(crl for crl in candidates if distinguished_name(crl.issuer) == authority)

    def unusable_crls_of(self, authority: x509.Name) -> tuple[str, ...]:
        """Return what cannot be read and may be a CRL of ``authority``, and why: it is not the same as none."""
        name, stems = distinguished_name(authority), self._stems_of(authority)
        certificates = self.of_kind(FileKind.CERTIFICATE)
        known = frozenset(stem for file in certificates for stem in file.stems)
        said = []
        with self._lock:
            for file in self.of_kind(FileKind.CRL):
                issuers = self._issuers.get(file, ())
                named = frozenset(stem.removesuffix(".crl") for stem in file.stems)
                # Of what tells no one issuer, the name of the file says whose it is; or nothing does.
                may_be = any(_may_be(name, each) for each in issuers)
                if may_be or (len(issuers) != 1 and (named & stems or not named & known)):
                    said += [f"{file.path}: {each}" for each in self.crls_in(file).problems]
            for file in certificates:
                if file.stems & stems:
                    unusable = [each for each in self.held_in(file).problems if _is_about_crl(each)]
                    said += [f"{file.path}: {each}" for each in unusable]
        return tuple(said)

    def crls_in(self, file: NamedFile) -> HeldCertificates:
        """Return what is in a file of CRLs; certificates in it are not trusted."""
        with self._lock:
            if file not in self._crls:
                found, problems = read_objects(file, self._limits)
                crls = tuple(one for one in found if isinstance(one, x509.CertificateRevocationList))
                if len(crls) < len(found):
                    problems.append("a certificate in a file of CRLs is not trusted")
                self._crls[file] = HeldCertificates(crls=crls, problems=tuple(problems))
            return self._crls[file]

    @cached_property
    def _issuers(self) -> Mapping[NamedFile, tuple[bytes, ...]]:
        """For each file of CRLs, who issued them, in DER."""
        return {file: self._issuers_in(file) for file in self.of_kind(FileKind.CRL) if not file.problem}

    def _issuers_in(self, file: NamedFile) -> tuple[bytes, ...]:
        try:
            return (crl_issuer(read_file(file.path, self._limits.crl_bytes)),)
        except (OSError, *PARSE_PROBLEMS):
            # Perhaps it holds several, or is of a form that only reading it whole can tell.
            return tuple(crl.issuer.public_bytes() for crl in self.crls_in(file).crls)

    def policies(self) -> tuple[PolicyFile, ...]:
        """Return every namespaces and signing policy file."""
        with self._lock:
            return tuple(self._policy(file) for file in self._texts)

    def policies_about(self, authority: x509.Name) -> tuple[PolicyFile, ...]:
        """Return the policy files that may say something about ``authority``: also those that are named for others."""
        issuer, stems = distinguished_name(authority), self._stems_of(authority)
        with self._lock:
            return tuple(
                self._policy(file)
                for file, text in self._texts.items()
                if stems & file.stems or _may_speak_of(issuer, text)
            )

    @cached_property
    def _texts(self) -> Mapping[NamedFile, str | ValueError | OSError]:
        found: dict[NamedFile, str | ValueError | OSError] = {}
        for file in self.of_kind(FileKind.NAMESPACES, FileKind.SIGNING_POLICY):
            if file.problem:
                found[file] = ValueError(file.problem)
                continue
            try:
                found[file] = read_file(file.path, self._limits.of(file.kind)).decode("utf-8")
            except (OSError, ValueError) as problem:
                found[file] = problem
        return found

    def _policy(self, file: NamedFile) -> PolicyFile:
        if file not in self._policies:
            self._policies[file] = _read_policy(file, self._texts[file])
        return self._policies[file]


def read_held(file: NamedFile, limits: AnchorLimits) -> HeldCertificates:
    """Return what is in a file of certificates, each looked at as a whole."""
    authorities: list[x509.Certificate] = []
    others: list[x509.Certificate] = []
    crls: list[x509.CertificateRevocationList] = []
    with quiet():
        found, problems = read_objects(file, limits)
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


def problems_of(held: HeldCertificates) -> tuple[str, ...]:
    """Return what of a file of certificates cannot be used, and why."""
    return (*held.problems, *(f"{distinguished_name(one.subject)} is no authority" for one in held.others))


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether ``certificate`` says that its holder may issue others (RFC 5280, 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _is_about_crl(problem: str) -> bool:
    return problem == _UNUSED_CRL or problem.startswith(DAMAGED_CRL)


def _may_be(name: DistinguishedName, der: bytes) -> bool:
    """Tell whether a name in DER may be ``name``; only one that cannot is left alone."""
    kind, value = name.attributes[-1] if name.attributes else ("", "")
    if not value.isascii() or "+" in kind or _WIDE.search(der):
        return True
    return value.encode() in der


def _may_speak_of(issuer: DistinguishedName, text: str | ValueError | OSError) -> bool:
    """Tell whether a policy file could name ``issuer``: only a file that cannot is left unread."""
    if not isinstance(text, str):
        # Whose it is, its names say.
        return False
    value = issuer.attributes[-1][1] if issuer.attributes else ""
    # A name can be written with escapes; what has any is read.
    return not _PLAIN.fullmatch(value) or value in text or "\\x" in text


def _read_policy(file: NamedFile, text: str | ValueError | OSError) -> PolicyFile:
    if not isinstance(text, str):
        return PolicyFile(file=file, problem=reason(text))
    reader = read_namespaces if file.kind is FileKind.NAMESPACES else read_signing_policy
    try:
        return PolicyFile(file=file, rules=reader(text))
    except DocumentError as problem:
        return PolicyFile(file=file, problem=problem.message, about=named_issuers(text))
