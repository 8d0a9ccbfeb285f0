# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import pytest

from coppice.errors import DocumentError
from coppice.formats.namespaces import SubjectPattern, named_issuers, read_namespaces, read_signing_policy
from coppice.model.endorser import DistinguishedName

pytestmark = pytest.mark.unit
CA = "/C=XX/O=Grid/CN=Grid CA"
NAMESPACES = f"""\
##############################################################################
#NAMESPACES-VERSION: 1.0
#    subjectDN: {CA} \\
TO Issuer "{CA}" \\
  PERMIT Subject "/C=XX/O=Grid/.*"

to issuer SELF deny subject "/C=XX/O=Grid/OU=Retired/.*"   # no longer
TO Issuer "/DC=org/CN=Sub" PERMIT \\
  # a comment between is no part of it
"""
SIGNING_POLICY = """\
# a comment
 access_id_CA   X509    '/C=XX/O=Grid/CN=Grid CA'   # whose
 pos_rights     globus  CA:sign
 cond_subjects  globus  '"/C=XX/O=Grid/CN=Grid CA" "/C=XX/O=Grid/*"'
 neg_rights\tglobus\tCA:sign
 cond_subjects  globus  '/C=XX/O=Grid/OU=Retired/*'
access_id_CA X509 '/DC=org/CN=Other'
pos_rights globus CA:other
cond_subjects globus '"/DC=org/*"'
"""


def name(text: str) -> DistinguishedName:
    return DistinguishedName.parse(text)


def test_namespaces_are_read_by_their_grammar() -> None:
    text = NAMESPACES.replace("# a comment between is no part of it", 'Subject "/DC=org/CN=Jane"')
    first, second, third = read_namespaces(text)
    assert (first.issuer, first.permits, first.subject.text, first.line) == (name(CA), True, "/C=XX/O=Grid/.*", 4)
    assert (second.issuer, second.permits, second.line) == (None, False, 7)
    assert (third.issuer, third.subject.text) == (name("/DC=org/CN=Sub"), "/DC=org/CN=Jane")


def test_signing_policies_are_read_by_their_grammar() -> None:
    rules = read_signing_policy(SIGNING_POLICY)
    assert [(rule.permits, rule.subject.text) for rule in rules] == [
        (True, "/C=XX/O=Grid/CN=Grid CA"),
        (True, "/C=XX/O=Grid/*"),
        (False, "/C=XX/O=Grid/OU=Retired/*"),
    ]
    assert {rule.issuer for rule in rules} == {name(CA)}


@pytest.mark.parametrize(
    "text",
    [
        NAMESPACES,
        'TO Issuer "/CN=A" PERMIT Subject',
        'TO Issuer "/CN=A" PERMIT Subject "/CN=B',
        'TO Issuer "/CN=A" PERMIT Subject "/CN=B" "/CN=C"',
        'TO Issuer "/CN=A" ALLOW Subject "/CN=B"',
        'TO Issuer /CN=A PERMIT Subject "/CN=B"',
        'TO Issuer "/CN=A" PERMIT Subject /CN=B',
        'TO Issuer "SELFISH" PERMIT Subject "/CN=B"',
        'TO "Issuer" "/CN=A" PERMIT Subject "/CN=B"',
        'TO Issuer "CN" PERMIT Subject "/CN=B"',
        'TO Issuer "/CN=A" PERMIT Subject "CN.*"',
        'TO Issuer "/CN=A" DENY Subject "/C=XX/O.*"',
        'TO Issuer "/CN=A" DENY Subject "/O=[Ee]vil/.*"',
        'TO Issuer "/CN=A" DENY Subject "/O=(A|B)"',
        'TO Issuer "/CN=A" DENY Subject "/O=A/.*/CN=B"',
        'TO Issuer "/CN=A" DENY Subject "/mood=Evil/.*"',
        'TO Issuer "/CN=A" PERMIT Subject "/CN=B" \\',
        "\0",
    ],
)
def test_malformed_namespaces_are_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="line"):
        read_namespaces(text)


@pytest.mark.parametrize(
    "text",
    [
        "access_id_CA X509",
        "access_id_ANYBODY globus '*'",
        "access_id_CA globus '/CN=A'",
        "pos_rights globus CA:sign",
        "cond_subjects globus '/CN=A'",
        "access_id_CA X509 '/CN=A'\ncond_subjects globus '/CN=B'",
        "access_id_CA X509 '/CN=A'\npos_rights globus CA:sign\ncond_subjects globus '\"/CN=B\" /CN=C'",
        "access_id_CA X509 '/CN=A'\npos_rights globus CA:sign\ncond_subjects globus '\"/CN=B'",
        "access_id_CA X509 '/CN=A'\npos_rights globus CA:sign\ncond_other globus '/CN=B'",
        "access_id_CA X509 '/CN=A'\nneg_rights globus CA:sign\ncond_subjects globus '/CN=B?'",
        "access_id_CA X509 '/CN=A",
    ],
)
def test_malformed_signing_policies_are_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="line"):
        read_signing_policy(text)


@pytest.mark.parametrize(
    ("pattern", "subject"),
    [
        ("/C=XX/O=Grid/.*", "/C=XX/O=Grid/CN=Jane"),
        ("/C=XX/O=Grid/*", "/C=XX/O=Grid/OU=People/CN=Jane"),
        ("/C=XX/O=Grid.*", "/C=XX/O=Grid"),
        ("/C=XX/O=Grid.*", "/C=XX/O=Gridlock/CN=Jane"),
        ("/C=XX/O=Grid/CN=Jane", "/C=XX/O=Grid/CN=Jane"),
        ("/O=Grid/CN=Robot: *", "/O=Grid/CN=Robot: 7"),
        ("/O=Grid/CN=host/node*", "/O=Grid/CN=host/node.example.org"),
        ("/O=D Ltd./CN=CA G3  [Run by the Issuer]", "/O=D Ltd./CN=CA G3  [Run by the Issuer]"),
        ("/O=Grid/Email=a@b/.*", "/O=Grid/emailAddress=a@b/CN=Jane"),
        (r"/O=Grid/CN=node\.example\.org", "/O=Grid/CN=node.example.org"),
        (".*", "/O=Grid"),
        ("/*", "/O=Grid/CN=Jane"),
    ],
)
def test_a_pattern_matches_what_it_writes(pattern: str, subject: str) -> None:
    assert SubjectPattern.parse(pattern).matches(name(subject))


@pytest.mark.threat("T16")
@pytest.mark.parametrize(
    ("pattern", "subject"),
    [
        ("/C=XX/O=Grid/.*", "/C=XX/O=Grid"),
        ("/C=XX/O=Grid/.*", "/C=XX/O=Gridlock/CN=Jane"),
        ("/C=XX/O=Grid/.*", "/O=Grid/C=XX/CN=Jane"),
        ("/C=XX/O=Grid/.*", "/DC=org/C=XX/O=Grid/CN=Jane"),
        ("/C=XX/O=Grid/.*", "/C=XX/O=grid/CN=Jane"),
        ("/C=XX/O=Grid/CN=Jane", "/C=XX/O=Grid/CN=Jane/CN=proxy"),
        ("/C=XX/O=Grid/CN=Jane", "/C=XX/O=Grid/CN=Janet"),
        ("/O=A.B/.*", "/O=AxB/CN=Jane"),
        # A slash at the end separates attributes: a value that goes on after a slash is not meant.
        ("/O=Grid/CN=host/*", "/O=Grid/CN=host/node.example.org"),
        ("/O=Grid/CN=[A-Z]*", "/O=Grid/CN=J"),
        ("/O=Grid/CN=.*/CN=Jane", "/O=Grid/CN=Eve/CN=Jane"),
    ],
)
def test_a_pattern_is_anchored_and_literal(pattern: str, subject: str) -> None:
    assert not SubjectPattern.parse(pattern).matches(name(subject))


@pytest.mark.threat("T16")
def test_a_value_with_a_slash_satisfies_no_pattern_of_attributes() -> None:
    pattern = SubjectPattern.parse("/O=Grid/OU=People/.*")
    assert not pattern.matches(DistinguishedName.of(("o", "Grid/OU=People"), ("cn", "Mallory")))
    assert not pattern.matches(DistinguishedName.of(("o", "Grid"), ("ou", "People/CN=Jane")))
    assert not SubjectPattern.parse("/O=Grid/.*").matches(DistinguishedName.of(("o", "Grid/CN=Jane")))


@pytest.mark.parametrize(
    ("pattern", "subject"),
    [
        ("/O=www.example.org/.*", DistinguishedName.of(("o", "www-example-org"), ("cn", "Jane"))),
        ("/O=Evil/.*", DistinguishedName.of(("o", "Evil/CN=Jane"))),
        ("/O=Evil/.*", DistinguishedName.of(("o", "Evil"), ("cn", "Jane"))),
        ("/O=Evil*", DistinguishedName.of(("o", "Evil Ltd."), ("cn", "Jane"))),
        ("/O=Evil", DistinguishedName.of(("o", "Evil"))),
        ("*", DistinguishedName.of(("o", "Evil"))),
    ],
)
def test_a_denial_means_all_that_it_could(pattern: str, subject: DistinguishedName) -> None:
    assert SubjectPattern.parse(pattern).could_match(subject)


@pytest.mark.parametrize("pattern", ["/O=Evil", "/O=Evil/*", "/O=Evil/CN=J"])
def test_a_denial_means_nothing_else(pattern: str) -> None:
    for subject in ("/O=Evildoer/CN=Jane", "/O=Evi", "/C=XX/O=Evil"):
        assert not SubjectPattern.parse(pattern).could_match(name(subject))


def test_a_malformed_file_still_tells_whom_it_is_about() -> None:
    text = 'TO Issuer "/CN=A" \\\n PERMIT Subject "/CN=B\nTO Issuer \\\n "/CN=C" WHAT\naccess_id_CA X509 \'/CN=D\''
    assert named_issuers(text) == {name("/CN=A"), name("/CN=C"), name("/CN=D")}


def test_hostile_text_is_read_in_linear_time() -> None:
    started = time.process_time()
    for text in ('"' * 200_000, "TO " * 100_000, "\\\n" * 100_000, "'a" * 100_000, " " * 300_000 + "x", "#" * 300_000):
        for reader in (read_namespaces, read_signing_policy):
            try:
                reader(text)
            except DocumentError:
                continue
    assert time.process_time() - started < 2
