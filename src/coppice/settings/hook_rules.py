# SPDX-License-Identifier: Apache-2.0
"""What the settings of a hook must have, beside each being of its type."""

from __future__ import annotations

import difflib
import os
import re
from typing import Protocol
from urllib.parse import urlsplit

from coppice.events.model import EventKind
from coppice.events.vmcatcher import TYPES

OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ONLY = {
    "command": "program",
    "compat": "program",
    "url": "webhook",
    "secret_file": "webhook",
    "secret_env": "webhook",
    "server_anchors": "webhook",
    "path": "file",
}
"""Setting → the one kind of hook that has it."""


class HookValues(Protocol):
    """The settings of a hook, as they were written."""

    @property
    def kind(self) -> str: ...  # noqa: D102 - as in the schema
    @property
    def events(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def compat(self) -> str | None: ...  # noqa: D102
    @property
    def command(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def url(self) -> str | None: ...  # noqa: D102
    @property
    def secret_file(self) -> str | None: ...  # noqa: D102
    @property
    def secret_env(self) -> str | None: ...  # noqa: D102
    @property
    def path(self) -> str | None: ...  # noqa: D102
    @property
    def output_limit_bytes(self) -> int: ...  # noqa: D102


def hook_problem(hook: HookValues) -> str | None:
    """Return what is wrong with a hook, or None."""
    foreign = [
        f"a {hook.kind} has no {key!r}: it is for a {kind}"
        for key, kind in _ONLY.items()
        if kind != hook.kind and getattr(hook, key)
    ]
    if foreign:
        return foreign[0]
    if hook.output_limit_bytes > OUTPUT_LIMIT_BYTES:
        return f"'output_limit_bytes' is more than {OUTPUT_LIMIT_BYTES}"
    return _PROBLEMS[hook.kind](hook) or _events_problem(hook)


def _program_problem(hook: HookValues) -> str | None:
    if not hook.command:
        return "a program needs 'command': the program and its arguments"
    program = hook.command[0]
    if os.sep in program and not program.startswith(os.sep):
        return f"the program {program!r} must be a name that is looked for in PATH, or an absolute path"
    return None


def _webhook_problem(hook: HookValues) -> str | None:
    if hook.url is None:
        return "a webhook needs 'url'"
    if (hook.secret_file is None) == (hook.secret_env is None):
        return "a webhook needs a secret: one of 'secret_file' and 'secret_env'"
    if hook.secret_env is not None and not _VARIABLE.fullmatch(hook.secret_env):
        return f"{hook.secret_env[:80]!r} cannot name a variable"
    return _address_problem(hook.url)


def _address_problem(text: str) -> str | None:
    try:
        url = urlsplit(text)
        host = url.hostname
    except ValueError as problem:
        return f"'url' is no address: {problem}"
    if "@" in url.netloc:
        return "'url' carries a user name or a password; a webhook is signed with the secret instead"
    if url.scheme != "https" or not host:
        return f"'url' must begin with https:// and name a server, found {text.partition('?')[0][:80]!r}"
    return None


def _file_problem(hook: HookValues) -> str | None:
    return "a file needs 'path'" if hook.path is None else None


_PROBLEMS = {"program": _program_problem, "webhook": _webhook_problem, "file": _file_problem}


def _events_problem(hook: HookValues) -> str | None:
    known = [str(kind) for kind in EventKind]
    for name in hook.events:
        if name not in known:
            near = {each.lower(): each for each in known}
            found = difflib.get_close_matches(name.lower(), near, n=1, cutoff=0.5)
            hint = f"; did you mean {near[found[0]]!r}?" if found else f"; there are {', '.join(known)}"
            return f"'events': there is no kind of event {name[:80]!r}{hint}"
        if hook.compat is not None and name not in {str(kind) for kind in TYPES}:
            return f"'events': vmcatcher has no event like {name!r}, so its handlers are never told of it"
    return None
