# SPDX-License-Identifier: Apache-2.0
"""Regular expressions that a subscription gives, and that are held against names that others chose.

An expression for which some name takes for ever is refused when it is given: of what Python's `re` knows, what is left
costs at most some millions of steps for any name of at most `MAX_VALUE_LENGTH` characters, and all names of one list
together have a limit of time.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from coppice.errors import InputError, MalformedListError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PATTERN_LENGTH = 512
MAX_VALUE_LENGTH = 256
MAX_SECONDS = 10.0
"""Of processor time, for all values of one list."""
_MAX_STEPS = 1 << 26
_MAX_OPTIONAL = 16
_TOKEN = re.compile(
    r"(?P<class>\[(?!\^?\])(?:\\.|[^\]\\])+\])"
    r"|(?P<escape>\\[^0-9A-Za-z]|\\[dDsSwWbBAZ])"
    r"|(?P<open>\((?:\?:|\?P<(?P<name>[A-Za-z_][A-Za-z0-9_]{0,31})>)?(?!\?))"
    r"|(?P<close>\))"
    r"|(?P<repeat>[*+?]|\{(?P<least>[0-9]{0,3})(?P<comma>,)?(?P<most>[0-9]{0,3})\})(?P<lazy>\??)(?![*+?{])"
    r"|(?P<bar>\|)"
    r"|(?P<letter>[^\\()\[\]{}*+?|])",
    re.DOTALL,
)

_UNCLEAR = re.compile(r"\[|--|&&|\|\||~~")
"""Python warns of these in classes: they may come to mean sets of sets."""


class Pattern:
    """An expression that ends soon, whatever it is held against.

    Args:
        text: The expression, in Python's words: letters, classes, groups with and without a name, ``|``, ``?``, ``*``,
            ``+``, ``{n,m}``. A group may be repeated only by ``?``; there are no references and no looking around.
        clock: Counts processor seconds.

    Raises:
        InputError: It is no such expression, or one that could take for ever.
    """

    def __init__(self, text: str, *, clock: Callable[[], float] = time.thread_time) -> None:
        _check(text)
        try:
            self._compiled = re.compile(text, re.ASCII)
        except (re.error, OverflowError, RecursionError) as problem:
            raise _refused(text, str(problem)) from problem
        self.text = text
        self.groups = tuple(self._compiled.groupindex)
        self._clock = clock
        self._spent = 0.0

    def match_whole(self, value: str) -> dict[str, str] | None:
        """Return the named groups where the whole of ``value`` fits; None where it does not.

        Raises:
            MalformedListError: The names took too long, all together.
        """
        return self._match(self._compiled.fullmatch, value)

    def match_start(self, value: str) -> dict[str, str] | None:
        """Return the named groups where the beginning of ``value`` fits; None where it does not.

        Raises:
            MalformedListError: The names took too long, all together.
        """
        return self._match(self._compiled.match, value)

    def _match(self, match: Callable[[str], re.Match[str] | None], value: str) -> dict[str, str] | None:
        if len(value) > MAX_VALUE_LENGTH:
            return None
        started = self._clock()
        found = match(value)
        self._spent += self._clock() - started
        if self._spent > MAX_SECONDS:
            raise MalformedListError(
                f"the expression {self.text[:80]!r} takes too long with what the source has",
                resolution="Say it with fewer open repetitions (* and +).",
            )
        return None if found is None else {name: text or "" for name, text in found.groupdict().items()}


def _check(text: str) -> None:
    """Refuse what is not in the language, and what is costly."""
    if not 0 < len(text) <= MAX_PATTERN_LENGTH:
        raise _refused(text, f"it has not 1 to {MAX_PATTERN_LENGTH} characters")
    steps, position, depth, optional, before = 1, 0, 0, 0, ""
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise _refused(text, f"it has something that is not understood at character {position + 1}")
        if token["class"] is not None and _UNCLEAR.search(token["class"], 1):
            raise _refused(text, "it has a class of letters that may mean something else one day")
        kind = token.lastgroup if token.lastgroup not in {"name", "least", "comma", "most", "lazy"} else "repeat"
        if token["open"] is not None:
            kind, depth = "open", depth + 1
        elif kind == "close":
            depth -= 1
        elif kind == "bar":
            steps *= 2
        elif kind == "repeat":
            steps *= _cost(text, token, before)
            optional += 1
        if depth < 0 or steps > _MAX_STEPS or optional > _MAX_OPTIONAL:
            raise _refused(text, "it has too many repetitions and choices, or its brackets do not match")
        before, position = kind or "", token.end()


def _cost(text: str, token: re.Match[str], before: str) -> int:
    """Return in how many ways a repetition can end, at most."""
    if before not in {"class", "escape", "letter", "close"}:
        raise _refused(text, "it repeats nothing, or a repetition")
    if token["repeat"] == "?":
        return 2
    if before == "close":
        raise _refused(text, "it repeats a group, which may be optional (?) and no more")
    if token["repeat"] in {"*", "+"}:
        return MAX_VALUE_LENGTH
    least, most = int(token["least"] or 0), token["most"]
    if token["comma"] is None:
        return 1
    return max(1, (int(most) if most else MAX_VALUE_LENGTH) - least + 1)


def _refused(text: str, reason: str) -> InputError:
    return InputError(
        f"the expression {text[:80]!r} is not accepted: {reason}",
        resolution="Letters, classes such as [0-9.], groups such as (?P<version>[0-9.]+), |, ?, *, + and {n,m} are.",
    )
