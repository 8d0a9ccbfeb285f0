# SPDX-License-Identifier: Apache-2.0
"""SELinux labels of a finished file system, as the tree's own policy says, in its own order of precedence. Pure.

A machine that finds no labels would have to write them at its first start, and start again. Here they are written into
the file system that is made, so that the first start is like every other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import BuildError
from coppice.factory.bootstrap.listing import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from coppice.factory.bootstrap.listing import Listing

POLICY_SETTINGS = "/etc/selinux/config"
CONTEXTS = ("file_contexts", "file_contexts.homedirs", "file_contexts.local")
SUBSTITUTES = ("file_contexts.subs", "file_contexts.subs_dist")
_TYPE = re.compile(r"^\s*SELINUXTYPE\s*=\s*([A-Za-z0-9_-]{1,64})\s*$", re.MULTILINE)
_DISABLED = re.compile(r"^\s*SELINUX\s*=\s*disabled\s*$", re.MULTILINE)
_KINDS = {"--": Kind.FILE, "-d": Kind.DIRECTORY, "-l": Kind.SYMLINK}
_OTHER_KINDS = frozenset({"-b", "-c", "-p", "-s"})
_NONE = "<<none>>"
_META = frozenset(".^$?*+|[({")
_REPEATS = frozenset("?*{")
_MAX_LABEL = 250


@dataclass(frozen=True, slots=True)
class _Rule:
    order: int
    pattern: re.Pattern[str]
    kind: Kind | None
    label: str


class Labels:
    """The rules of a policy.

    Args:
        contexts: Texts of its rules, the weakest first.
        substitutes: Texts of its substitutes, the strongest first.

    Raises:
        BuildError: A rule cannot be read.
    """

    def __init__(self, contexts: Iterable[str], substitutes: Iterable[str] = ()) -> None:
        rules = [rule for text in contexts for rule in _rules(text)]
        # What names one path alone is stronger than every pattern; among equals, the last one is.
        ordered = [*(rule for rule in rules if not rule[3]), *(rule for rule in rules if rule[3])]
        self._by_stem: dict[str, list[_Rule]] = {}
        for order, (stem, kind, label, _, pattern) in enumerate(ordered):
            self._by_stem.setdefault(stem, []).append(_Rule(order, pattern, kind, label))
        self._substitutes = [list(_pairs(text)) for text in substitutes]

    def label(self, path: str, kind: Kind) -> str | None:
        """Return the label of what is at ``path``; None: it has none."""
        true = self._substituted(path)
        stems = (true[:length] for length in range(len(true) + 1))
        found = [rule for stem in stems for rule in self._by_stem.get(stem, ())]
        for rule in sorted(found, key=lambda rule: rule.order, reverse=True):
            if rule.kind in {None, kind} and rule.pattern.fullmatch(true):
                return None if rule.label == _NONE else rule.label
        return None

    def _substituted(self, path: str) -> str:
        for pairs in self._substitutes:
            for alias, target in pairs:
                if path == alias or path.startswith(f"{alias}/"):
                    path = f"{target}{path[len(alias) :]}" if target != "/" else path[len(alias) :] or "/"
                    break
        return path


def policy_folder(settings: str | None) -> str | None:
    """Return where the rules of the policy lie that ``/etc/selinux/config`` names; None: SELinux is not used."""
    if settings is None or _DISABLED.search(settings):
        return None
    named = _TYPE.findall(settings)
    return f"/etc/selinux/{named[-1] if named else 'targeted'}/contexts/files"


def labels_of(listing: Listing, labels: Labels) -> dict[str, str]:
    """Return the label of each path of ``listing`` that has one; a further name of a file is the same file."""
    found = {path: labels.label(path, node.kind) for path, node in listing.items() if node.kind is not Kind.LINK}
    return {path: label for path, label in found.items() if label is not None}


def label_script(found: Mapping[str, str], files: Mapping[str, str]) -> str:
    """Return the commands of ``debugfs`` that write labels.

    Args:
        found: Label by path.
        files: By label, the path of a file with it.

    Raises:
        BuildError: A name cannot be written.
    """
    lines = []
    for path, label in found.items():
        quoted = path.replace('"', '""')
        line = f'ea_set -f "{files[label]}" "{quoted}" security.selinux'
        if "\n" in line:
            raise BuildError(f"a path that cannot be written into a file system: {path[:200]!r}")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _rules(text: str) -> Iterator[tuple[str, Kind | None, str, bool, re.Pattern[str]]]:
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        expression, *kinds, label = words
        if len(kinds) > 1 or len(label) > _MAX_LABEL or (kinds and kinds[0] not in {*_KINDS, *_OTHER_KINDS}):
            raise _unreadable(line)
        if kinds and kinds[0] in _OTHER_KINDS:
            # Neither devices nor sockets are in an image.
            continue
        try:
            pattern = re.compile(expression, re.DOTALL)
        except re.error as problem:
            raise _unreadable(line) from problem
        stem, is_exact = _stem(expression)
        yield stem, _KINDS[kinds[0]] if kinds else None, label, is_exact, pattern


def _stem(expression: str) -> tuple[str, bool]:
    """Return the text that everything begins with that an expression matches, and whether that is all of it."""
    found: list[str] = []
    position = 0
    while position < len(expression):
        sign = expression[position]
        if sign in _META:
            if sign in _REPEATS and found:
                found.pop()
            return "" if _has_choice(expression) else "".join(found), False
        if sign == "\\" and position + 1 < len(expression):
            position += 1
            sign = expression[position]
            if sign.isalnum():
                return "".join(found), False
        found.append(sign)
        position += 1
    return "".join(found), True


def _has_choice(expression: str) -> bool:
    depth = 0
    for sign in re.sub(r"\\.|\[[^\]]*\]", "", expression):
        depth += (sign == "(") - (sign == ")")
        if sign == "|" and not depth:
            return True
    return False


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    # The last one is found first.
    for line in reversed(text.splitlines()):
        words = line.split()
        if len(words) > 1 and not words[0].startswith("#"):
            yield words[0].rstrip("/"), words[1].rstrip("/") or "/"


def _unreadable(line: str) -> BuildError:
    return BuildError(f"a rule of the tree's SELinux policy cannot be read: {line[:200]!r}")
