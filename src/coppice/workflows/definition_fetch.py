# SPDX-License-Identifier: Apache-2.0
"""Fetch a repository's definitions, and judge who signed them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coppice.definition.git_remote import Tip, fetching
from coppice.definition.git_signature import judge, signature_of_commit, signature_of_tag, tagged
from coppice.definition.git_tree import take
from coppice.errors import DefinitionSourceError, SignatureFormError, TrustError
from coppice.formats.openpgp import read_keyring
from coppice.subscription.openpgp import Keyring

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.definition.git_address import GitAddress
    from coppice.definition.git_lock import PinnedSource
    from coppice.definition.git_program import Network
    from coppice.definition.git_remote import Remote
    from coppice.definition.git_signature import PinnedKey
    from coppice.definition.git_tree import TakenFile
    from coppice.monitor import Monitor

_COMMITTER = re.compile(rb"^committer [^\n]*> ([0-9]{1,11}) [+-][0-9]{4}$", re.MULTILINE)
_MAX_SUBJECT = 120
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFacts:
    """What a commit says of itself; whoever may push can write anything there.

    Attributes:
        identifier: Of the commit.
        at: When it was made.
        subject: The first line of its message.
    """

    identifier: str
    at: datetime
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedSource:
    """What a ref is today.

    Attributes:
        commit: The commit.
        tip: What names it.
        files: Of the definitions, by path.
        signed_by: Whose signature holds; empty: nobody was asked.
    """

    commit: CommitFacts
    tip: Tip
    files: Mapping[str, TakenFile]
    signed_by: str


def fetch_source(
    address: GitAddress, key: PinnedKey | None, directory: Path, network: Network, monitor: Monitor
) -> FetchedSource:
    """Fetch what ``address`` leads to today.

    Args:
        address: Where.
        key: Whose signatures alone are accepted; None: nobody's are asked for.
        directory: For temporary files.
        network: The way.
        monitor: Is told.

    Raises:
        DefinitionSourceError: It cannot be had, is nothing to take definitions from, or is not signed by the key.
    """
    with monitor.task(f"fetching {address}"), fetching(address, directory, network) as remote:
        tip = remote.tip()
        commit = remote.fetch(tip)
        raw = remote.raw(commit, "commit")
        # Before anything of it is looked into.
        signed_by = "" if key is None else _signer(remote, tip, raw, commit, key=key)
        return FetchedSource(commit=_facts(commit, raw), tip=tip, files=take(remote, address), signed_by=signed_by)


def fetch_pinned(source: PinnedSource, directory: Path, network: Network, monitor: Monitor) -> dict[str, TakenFile]:
    """Fetch the files of the commit that ``source`` is pinned to.

    Raises:
        DefinitionSourceError: They cannot be had.
    """
    with (
        monitor.task(f"fetching {source.address} at {source.commit[:12]}"),
        fetching(source.address, directory, network) as remote,
    ):
        if remote.fetch(Tip(identifier=source.commit, kind="commit")) != source.commit:
            raise DefinitionSourceError(f"{source.address.url} gives another commit than was asked for")
        return take(remote, source.address)


def _signer(remote: Remote, tip: Tip, raw: bytes, commit: str, *, key: PinnedKey) -> str:
    """Return who signed the tag, or else the commit."""
    address, at_tag = remote.address, None
    try:
        if tip.identifier != commit:
            try:
                return _signer_of_tag(remote, tip, commit, key)
            except TrustError as problem:
                at_tag = problem
        return judge(signature_of_commit(raw), key, f"the commit {commit[:12]}", _openpgp)
    except TrustError as problem:
        shown = at_tag or problem
        raise DefinitionSourceError(
            f"{address} is not used: {shown.message}",
            details=shown.details,
            resolution=shown.resolution or "Ask the maintainers, or take a tag or commit that is signed.",
            context={"address": str(address), "commit": commit},
        ) from problem


def _signer_of_tag(remote: Remote, tip: Tip, commit: str, key: PinnedKey) -> str:
    ref = remote.address.ref
    raw = remote.raw(tip.identifier, "tag")
    signed = signature_of_tag(raw)
    signer = judge(signed, key, f"the tag {ref}", _openpgp)
    if tagged(signed.payload) != (commit, "commit", ref):
        # A signed tag under another name would bring back what it was once good for.
        raise SignatureFormError(f"the tag {ref} was signed under another name, or not for a commit")
    return signer


def _openpgp(document: bytes, signature: bytes, keyring: str, what: str) -> str:
    binary, keys = read_keyring(keyring.encode("ascii"))
    return Keyring(binary, keys, "the pinned key").verify_detached(document, signature, what=what).signer


def _facts(commit: str, raw: bytes) -> CommitFacts:
    head, _, message = raw.partition(b"\n\n")
    match = _COMMITTER.search(head)
    try:
        at = _EPOCH if match is None else datetime.fromtimestamp(int(match[1]), UTC)
    except (ValueError, OverflowError, OSError):
        at = _EPOCH
    subject = message.partition(b"\n")[0].decode("utf-8", errors="replace")[:_MAX_SUBJECT]
    return CommitFacts(identifier=commit, at=at, subject=subject)
