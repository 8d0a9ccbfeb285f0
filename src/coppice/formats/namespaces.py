# SPDX-License-Identifier: Apache-2.0
"""Which names an authority may certify: ``*.namespaces`` and ``*.signing_policy`` files, read by their grammars.

* ``*.namespaces``: Relying Party Defined Namespace Constraints (Open Grid Forum, GFD.189): statements
  ``TO Issuer "DN"|SELF PERMIT|DENY Subject "pattern"``; ``#`` begins a comment, after a backslash a line goes on.
* ``*.signing_policy``: the extended access control lists of the Globus Toolkit: ``access_id_CA X509 'DN'``, then
  ``pos_rights globus CA:sign`` (or ``neg_rights``), then ``cond_subjects globus '"pattern" "pattern"'``.

Both formats call a pattern a regular expression or a glob, and real files do not keep to that (``[Run by the Issuer]``
is meant literally). So a pattern is literal text that may end in ``.*`` or ``*``. It is compared as the structure that
it writes, attribute by attribute: a value that contains ``/CN=`` satisfies no pattern for that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from coppice.errors import DocumentError
from coppice.model.endorser import MAX_NAME_LENGTH, DistinguishedName

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_POLICY_BYTES = 1024 * 1024
_MAX_RULES = 10_000
_TOKEN = re.compile(r"""[ \t]*(?:"([^"\n]*)"|'([^'\n]*)'|([^\s"'#]+))""")
_BLANK = re.compile(r"[ \t\f\v]*(?:#.*)?")
# What a name itself may escape is left to it.
_ESCAPED = re.compile(r"\\([^A-Za-z0-9/+\\])")
_REGULAR = set("[](){}+?^$|*\\")
"""What would mean something in a regular expression. In a denial it cannot be taken literally: it would deny less."""
# The same authorities stand in many files.
_parsed = lru_cache(maxsize=512)(DistinguishedName.parse)
_KNOWN_TYPES = {"c", "cn", "dc", "emailaddress", "gn", "l", "o", "ou", "serialnumber", "sn", "st", "title", "uid"}


@dataclass(frozen=True, slots=True)
class SubjectPattern:
    """A pattern for the names of subjects.

    Attributes:
        attributes: The attributes that it writes, most general first.
        open_value: Whether the value of the last attribute may go on (``/CN=Robot*``).
        open_end: Whether attributes may follow: at least one where the pattern ends in a separator (``/C=PK/*``).
        separator: Whether it does end so.
        text: As it is written.
    """

    attributes: tuple[tuple[str, str], ...]
    open_value: bool
    open_end: bool
    separator: bool
    text: str

    @classmethod
    def parse(cls, text: str) -> SubjectPattern:
        """Read a pattern.

        Raises:
            ValueError: Without its wildcard it is no distinguished name.
        """
        literal = text.strip()
        wild = False
        for ending in (".*", "*"):
            if literal.endswith(ending) and not literal.endswith("\\" + ending):
                literal, wild = literal.removesuffix(ending), True
                break
        literal = _ESCAPED.sub(r"\1", literal)
        if wild and literal in {"", "/"}:
            return cls((), open_value=False, open_end=True, separator=True, text=text)
        separator = wild and literal.endswith("/") and not literal.endswith("\\/")
        if not literal.startswith("/") or len(literal) > MAX_NAME_LENGTH:
            message = f"not a pattern such as /DC=org/CN=*: {text[:120]!r}"
            raise ValueError(message)
        name = _parsed(literal.removesuffix("/") if separator else literal)
        return cls(name.attributes, open_value=wild and not separator, open_end=wild, separator=separator, text=text)

    def matches(self, name: DistinguishedName) -> bool:
        """Tell whether ``name`` is one of those that are written."""
        given, written = name.attributes, self.attributes
        if len(given) < len(written) + self.separator or (len(given) > len(written) and not self.open_end):
            return False
        if not self.open_value:
            return given[: len(written)] == written
        (kind, value), (last_kind, last_value) = written[-1], given[len(written) - 1]
        return given[: len(written) - 1] == written[:-1] and kind == last_kind and last_value.startswith(value)

    def could_match(self, name: DistinguishedName) -> bool:
        """Tell whether ``name`` is one of those that could be meant; for denials, where the wider reading is safe.

        As the formats say it, a dot is any character here, and what follows a separator may go on in the same value.
        """
        given, written = name.attributes, self.attributes
        if len(given) < len(written) or (len(given) > len(written) and not self.open_end):
            return False
        kinds = all(kind == given[place][0] for place, (kind, _value) in enumerate(written))
        endings = ["" if place < len(written) - 1 else self._ending(len(given)) for place in range(len(written))]
        return kinds and all(
            re.fullmatch(_with_dots(value) + ending, given[place][1], re.DOTALL)
            for place, ((_kind, value), ending) in enumerate(zip(written, endings, strict=True))
        )

    def _ending(self, given: int) -> str:
        if self.open_value:
            return ".*"
        if not self.separator:
            return ""
        return "(/.*)?" if given > len(self.attributes) else "/.*"

    def require_deniable(self) -> None:
        """Check that the pattern cannot mean more, by the format, than it does here: a denial would deny less.

        Raises:
            ValueError: It can.
        """
        unknown = [kind for kind, _value in self.attributes if kind not in _KNOWN_TYPES and "." not in kind]
        if unknown:
            message = f"a denial of an attribute that is not known: {unknown[0][:40]!r}"
            raise ValueError(message)
        if any("/" in value for _kind, value in self.attributes):
            message = f"a denial that can be read in two ways: {self.text[:120]!r}"
            raise ValueError(message)
        literal = self.text.strip().removesuffix(".*").removesuffix("*")
        if _REGULAR.intersection(literal):
            message = f"a denial whose pattern is a regular expression is not understood: {self.text[:120]!r}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class NamespaceRule:
    """One rule.

    Attributes:
        issuer: The authority that it is about; None: the one whose file this is.
        permits: False when it denies.
        subject: Which names.
        line: Where it stands, from 1.
    """

    issuer: DistinguishedName | None
    permits: bool
    subject: SubjectPattern
    line: int


def read_namespaces(text: str) -> tuple[NamespaceRule, ...]:
    """Read a ``*.namespaces`` file (GFD.189).

    Raises:
        DocumentError: It does not keep to the grammar.
    """
    rules: list[NamespaceRule] = []
    for line, tokens in _statements(text, continued=True):
        words = [("" if quoted else word.upper()) for word, quoted in tokens]
        # TO Issuer <who> PERMIT|DENY Subject <pattern>
        if len(tokens) != 6 or words[0:2] != ["TO", "ISSUER"] or words[4] != "SUBJECT":  # noqa: PLR2004 - the grammar
            raise _malformed(line, 'expected: TO Issuer "DN" PERMIT|DENY Subject "pattern"')
        if words[3] not in {"PERMIT", "DENY"} or not (tokens[2][1] or words[2] == "SELF") or not tokens[5][1]:
            raise _malformed(line, 'expected: TO Issuer "DN"|SELF PERMIT|DENY Subject "pattern"')
        issuer = _name(tokens[2][0], line) if tokens[2][1] else None
        rules.append(_rule(issuer, tokens[5][0], permits=words[3] == "PERMIT", line=line))
        _require_few(rules, line)
    return tuple(rules)


def read_signing_policy(text: str) -> tuple[NamespaceRule, ...]:
    """Read a ``*.signing_policy`` file.

    Rights that are not ``CA:sign`` say nothing about names and are passed over.

    Raises:
        DocumentError: It does not keep to the grammar.
    """
    rules: list[NamespaceRule] = []
    issuer: DistinguishedName | None = None
    permits: bool | None = None
    signs = False
    for line, tokens in _statements(text, continued=False):
        if len(tokens) != 3:  # noqa: PLR2004 - the grammar: three words a line
            raise _malformed(line, "expected three words")
        key, kind, value = (word for word, _quoted in tokens)
        if key.startswith("access_id_"):
            if key != "access_id_CA" or kind.upper() != "X509":
                raise _malformed(line, "expected: access_id_CA X509 'DN'")
            issuer, permits, signs = _name(value, line), None, False
        elif key in {"pos_rights", "neg_rights"}:
            if issuer is None:
                raise _malformed(line, f"{key} without an access_id_CA before it")
            signs = kind.lower() == "globus" and value == "CA:sign"
            permits = key == "pos_rights"
        elif key == "cond_subjects" and kind.lower() == "globus":
            if issuer is None or permits is None:
                raise _malformed(line, "cond_subjects without rights before it")
            for pattern in _patterns(value, line) if signs else ():
                rules.append(_rule(issuer, pattern, permits=permits, line=line))
                _require_few(rules, line)
        else:
            raise _malformed(line, f"{key[:40]!r} is not understood")
    return tuple(rules)


def named_issuers(text: str) -> frozenset[DistinguishedName]:
    """Return the authorities that a policy file speaks of, as far as can be told, even when it is malformed."""
    found = set()
    for match in re.finditer(r"""(?:Issuer|X509)\s*(?:\\\s*)?["']([^"'\n]{1,4096})["']""", text, re.IGNORECASE):
        try:
            found.add(DistinguishedName.parse(match.group(1)))
        except ValueError:
            continue
    return frozenset(found)


def _with_dots(text: str) -> str:
    return "".join("." if sign == "." else re.escape(sign) for sign in text)


def _statements(text: str, *, continued: bool) -> Iterator[tuple[int, list[tuple[str, bool]]]]:
    """Yield each statement that is not empty: its line, and its words with whether they were quoted."""
    pending: list[tuple[str, bool]] = []
    begun = 0
    for number, raw in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        line = raw.rstrip(" \t")
        # A comment ends with its line, whatever its last character.
        goes_on = continued and line.endswith("\\") and not line.lstrip().startswith("#")
        begun = begun if pending else number
        pending += _words(line.removesuffix("\\") if goes_on else line, number)
        if pending and not goes_on:
            yield begun, pending
            pending = []
    if pending:
        raise _malformed(begun, "the last statement is not complete")


def _words(line: str, number: int) -> Iterator[tuple[str, bool]]:
    place = 0
    while not _BLANK.fullmatch(line, place):
        token = _TOKEN.match(line, place)
        if token is None:
            raise _malformed(number, f"not understood from column {place + 1} on")
        place = token.end()
        double, single, bare = token.groups()
        if bare is not None:
            yield bare, False
        else:
            yield (double if double is not None else single), True


def _patterns(value: str, line: int) -> list[str]:
    if '"' not in value:
        return [value]
    found = re.fullmatch(r'\s*(?:"[^"]*"\s*)+', value)
    if found is None:
        raise _malformed(line, "the patterns are not each in quotation marks")
    return re.findall(r'"([^"]*)"', value)


def _rule(issuer: DistinguishedName | None, pattern: str, *, permits: bool, line: int) -> NamespaceRule:
    try:
        subject = SubjectPattern.parse(pattern)
        if not permits:
            subject.require_deniable()
    except ValueError as problem:
        raise _malformed(line, str(problem)) from problem
    return NamespaceRule(issuer, permits, subject, line)


def _require_few(rules: list[NamespaceRule], line: int) -> None:
    if len(rules) > _MAX_RULES:
        raise _malformed(line, f"more than {_MAX_RULES} rules")


def _name(text: str, line: int) -> DistinguishedName:
    try:
        return _parsed(text)
    except ValueError as problem:
        raise _malformed(line, str(problem)) from problem


def _malformed(line: int, what: str) -> DocumentError:
    return DocumentError(f"line {line}: {what}")
