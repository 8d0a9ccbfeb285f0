# SPDX-License-Identifier: Apache-2.0
"""Which names each authority of a path may certify: the rules of all policy files together, applied link by link.

Where the two kinds of files both speak of an authority, ``*.namespaces`` counts and ``*.signing_policy`` does not: the
former is the newer and the more exact of the two. A rule about an authority may stand in another's file. A file that
cannot be understood takes every policy away from the authority that it is about.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from coppice.errors import NamespaceError, NamespaceUnknownError
from coppice.formats.names import distinguished_name
from coppice.subscription.anchor_files import FileKind
from coppice.subscription.model import NamespacePolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cryptography import x509

    from coppice.formats.namespaces import NamespaceRule
    from coppice.model.endorser import DistinguishedName
    from coppice.subscription.anchor_contents import PolicyFile
    from coppice.subscription.anchors import TrustAnchors

_AMBIGUOUS = re.compile(r"[/+][A-Za-z0-9.]+=|[\x00-\x1f\x7f]")
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule and the file that it stands in.

    Attributes:
        rule: What it says.
        file: One name of the file.
    """

    rule: NamespaceRule
    file: str

    def __str__(self) -> str:
        """Return it as one line."""
        verb = "permits" if self.rule.permits else "denies"
        return f"{self.file} line {self.rule.line} {verb} {self.rule.subject.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """The rules of a directory of trust anchors.

    Attributes:
        rules: For each authority, those that count.
        spoiled: For authorities whose policy cannot be understood: why.
        problems: Files that cannot be obeyed, each with the reason.
    """

    rules: Mapping[DistinguishedName, tuple[PlacedRule, ...]] = field(default_factory=dict)
    spoiled: Mapping[DistinguishedName, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, files: Sequence[PolicyFile], subjects_of: Callable[[frozenset[str]], frozenset[DistinguishedName]]
    ) -> Namespaces:
        """Bring the rules of ``files`` together.

        Args:
            files: Policy files.
            subjects_of: Tells the authorities whose certificates are in files of the same names: ``SELF`` is they.
        """
        found: dict[FileKind, dict[DistinguishedName, list[PlacedRule]]] = {}
        spoiled: dict[DistinguishedName, str] = {}
        problems: dict[str, str] = {}
        for each in files:
            name = each.file.names[0]
            problem = each.problem
            says_self = any(rule.issuer is None for rule in each.rules)
            own = subjects_of(each.file.stems) if problem or says_self else frozenset()
            if not problem and says_self and not own:
                problem = "it says SELF, and no authority's certificate has its name"
            if problem:
                problems[name] = problem
                for issuer in own | each.about | {rule.issuer for rule in each.rules if rule.issuer is not None}:
                    spoiled[issuer] = f"{name}: {problem}"
                continue
            index = found.setdefault(each.file.kind, {})
            for rule in each.rules:
                for issuer in own if rule.issuer is None else (rule.issuer,):
                    index.setdefault(issuer, []).append(PlacedRule(replace(rule, issuer=issuer), name))
        together = {**found.get(FileKind.SIGNING_POLICY, {}), **found.get(FileKind.NAMESPACES, {})}
        return cls(
            rules={issuer: tuple(rules) for issuer, rules in together.items()},
            spoiled=spoiled,
            problems=problems,
        )


NO_NAMESPACES = Namespaces()


def check_namespaces(
    path: Sequence[x509.Certificate], anchors: TrustAnchors, *, policy: NamespacePolicy
) -> tuple[str, ...]:
    """Check that each authority of ``path`` may certify the name below it; return warnings.

    Args:
        path: From the signer up.
        anchors: Tell what each authority may certify.
        policy: What is asked.

    Raises:
        NamespaceError: A policy does not permit a name, or a name could be read in two ways.
        NamespaceUnknownError: A policy is needed and not there, or cannot be understood.
    """
    if policy is NamespacePolicy.AUTOMATIC:
        if not anchors.have_policies:
            return ()
        policy = NamespacePolicy.REQUIRE
    warnings = []
    for link, above in pairwise(path):
        subject, issuer = distinguished_name(link.subject), distinguished_name(above.subject)
        _require_unambiguous(subject)
        namespaces = anchors.namespaces_of(above.subject)
        if issuer in namespaces.spoiled:
            raise _unknown(f"what names {issuer} may certify is not understood", namespaces.spoiled[issuer])
        rules = namespaces.rules.get(issuer, ())
        if rules:
            _apply(rules, subject, issuer)
        elif policy is NamespacePolicy.REQUIRE:
            raise _unknown(f"nothing says what names {issuer} may certify", "")
        else:
            warnings.append(f"nothing says what names {issuer} may certify")
    return tuple(warnings)


def _apply(rules: Sequence[PlacedRule], subject: DistinguishedName, issuer: DistinguishedName) -> None:
    denying = [each for each in rules if not each.rule.permits and each.rule.subject.could_match(subject)]
    permitting = [each for each in rules if each.rule.permits and each.rule.subject.matches(subject)]
    if denying or not permitting:
        considered = denying or rules
        raise NamespaceError(
            f"{issuer} may not certify the name {subject}",
            details="\n".join(str(each) for each in considered[:_SHOWN]),
            resolution="The endorser needs a certificate of an authority that may certify this name. If the "
            "authority's namespaces have changed, bring the trust anchors up to date.",
            context={"subject": str(subject), "issuer": str(issuer)},
        )


def _require_unambiguous(subject: DistinguishedName) -> None:
    # Other tools compare names as text; what they take for several attributes must not pass here as one.
    if any("+" in kind or _AMBIGUOUS.search(value) for kind, value in subject.attributes):
        raise NamespaceError(
            f"the name {str(subject)!r} can be read in two ways",
            details="\n".join(f"{kind} = {value!r}" for kind, value in subject.attributes),
            resolution="The endorser needs a certificate whose name has one attribute at a time, and no '/CN=' in one.",
        )


def _unknown(message: str, details: str) -> NamespaceUnknownError:
    return NamespaceUnknownError(
        message,
        details=details or None,
        resolution="Put the authority's .namespaces or .signing_policy file beside its certificate (the IGTF's "
        f"distribution has them); or subscribe with --namespaces {NamespacePolicy.IF_PRESENT} to go without.",
    )
