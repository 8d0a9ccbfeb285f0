# SPDX-License-Identifier: Apache-2.0
"""Addresses of definitions in git: ``git+https://host/repository.git#ref:path``, read strictly.

An address ends up in the arguments of git and ssh, and its path in names of files. So only what cannot be taken for
anything else is an address: no option, no other transport, no user's password, no way up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn

from coppice.errors import DefinitionSourceError
from coppice.model.identifiers import is_name

PREFIX: Final = "git+"
MAX_ADDRESS_LENGTH: Final = 1000
MAX_DEPTH: Final = 16

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
_WAY = r"(?:/[A-Za-z0-9._~%+][A-Za-z0-9._~%+@-]*)+/?"
_FORMS: Final = {
    "https": re.compile(rf"https://{_HOST}{_WAY}"),
    "ssh": re.compile(rf"ssh://(?:[A-Za-z0-9_][A-Za-z0-9._-]{{0,63}}@)?{_HOST}{_WAY}"),
    "file": re.compile(r"file://(?:/[A-Za-z0-9._~+@=,-]+)+/?"),
}
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9._+-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitAddress:
    """Where definitions are.

    Attributes:
        scheme: ``https``, ``ssh`` or ``file``: the one transport that is allowed.
        url: Of the repository, as git takes it.
        ref: A branch, a tag or a whole commit; empty: the repository's default branch.
        path: The folder of one definition, or one whose folders are definitions; empty: the top.
    """

    scheme: str
    url: str
    ref: str = ""
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> GitAddress:
        """Read an address as people write it.

        Raises:
            DefinitionSourceError: It is none; the message says which part.
        """
        if len(text) > MAX_ADDRESS_LENGTH:
            raise DefinitionSourceError(f"the address is longer than {MAX_ADDRESS_LENGTH} characters")
        if not text.startswith(PREFIX):
            _refuse(text, "does not begin with git+https://, git+ssh:// or git+file://")
        url, has_fragment, fragment = text.removeprefix(PREFIX).partition("#")
        scheme = url.partition("://")[0]
        if scheme == "http":
            _refuse(text, "would be fetched without encryption")
        if scheme not in _FORMS:
            _refuse(text, "has a transport that is not taken")
        if "@" in url.removeprefix(f"{scheme}://").partition("/")[0] and scheme == "https":
            _refuse(text, "has a user's name or password in it, which are not sent")
        if not _FORMS[scheme].fullmatch(url) or any(part in {".", ".."} for part in url.split("/")):
            _refuse(text, "has characters or parts that no such address has")
        if has_fragment and not fragment:
            _refuse(text, "has an empty ref and path behind #")
        ref, _, path = fragment.partition(":")
        return cls(scheme=scheme, url=url, ref=_ref(ref, text), path=_path(path, text))

    @property
    def is_commit(self) -> bool:
        """Tell whether the ref is a commit itself, which cannot move."""
        return _COMMIT.fullmatch(self.ref) is not None

    @property
    def folder(self) -> str:
        """The name of the folder that the path leads to; of the top, the repository's."""
        last = (self.path or self.url.rstrip("/")).rpartition("/")[2]
        return last if self.path else last.removesuffix(".git")

    def suggested_name(self) -> str | None:
        """Return what the source can be called where nobody says; None: its folder's name cannot be one."""
        name = self.folder.lower()
        return name if is_name(name) else None

    def __str__(self) -> str:
        """Return it as people write it."""
        path = f":{self.path}" if self.path else ""
        return f"{PREFIX}{self.url}#{self.ref}{path}" if self.ref or path else f"{PREFIX}{self.url}"


def _ref(ref: str, text: str) -> str:
    parts = ref.split("/")
    is_odd = any(not part or part.startswith(".") or part.endswith((".", ".lock")) for part in parts) or ".." in ref
    if ref and (is_odd or not _REF.fullmatch(ref)):
        _refuse(text, f"has a ref that is none: {ref[:80]!r}")
    return ref


def _path(path: str, text: str) -> str:
    parts = [part for part in path.split("/") if part]
    if len(parts) > MAX_DEPTH or any(not is_plain_part(part) for part in parts):
        _refuse(text, f"has a path that is none: {path[:80]!r}")
    return "/".join(parts)


def is_plain_part(part: str) -> bool:
    """Tell whether ``part`` of a path is a name that means nothing else anywhere: not ``..``, not ``.git``."""
    return _PART.fullmatch(part) is not None and part not in {".", ".."} and part.lower().rstrip(".") != ".git"


def _refuse(text: str, why: str) -> NoReturn:
    raise DefinitionSourceError(
        f"{text[:200]!r} is no address of definitions: it {why}",
        resolution="Write git+https://HOST/REPOSITORY#REF:PATH (or git+ssh://, git+file:///); REF and PATH may be left "
        "out.",
    )
