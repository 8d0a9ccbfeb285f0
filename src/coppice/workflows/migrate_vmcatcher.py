# SPDX-License-Identifier: Apache-2.0
"""Take over the subscriptions of a vmcatcher: its database → subscriptions, each with whom it trusts and what it wants.

Each subscription comes in by itself; one that cannot is skipped, and said. Once more is fine: what is here stays as it
is. Passwords go into files that this user alone can read, or nowhere.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from coppice import atomic
from coppice.errors import CoppiceError, ExistsError, InputError, StorageError
from coppice.log import redact
from coppice.model.credential import CredentialKind, CredentialReference
from coppice.model.endorser import DistinguishedName
from coppice.model.identifiers import ImageIdentifier, ListIdentifier, is_uuid
from coppice.subscription.anchors import load_anchors
from coppice.subscription.changes import check_subscription
from coppice.subscription.model import ImageSelection, PinnedEndorser, Subscription, TrustPolicy
from coppice.subscription.rules import verify_list
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.migration import Migrated, Outcome, free_name
from coppice.workflows.vmcatcher_database import read_vmcatcher

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.settings.model import Settings
    from coppice.subscription.anchors import TrustAnchors
    from coppice.workflows.vmcatcher_database import ForeignSubscription

_OAUTH = "x-oauth-basic"
"""The password that goes with an access token as the user name."""
_ACCEPT, _SUBSCRIBE = 1, 2
_NO_CHECK, _IGTF = 0, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Login:
    """What a server is shown; the secret is never shown to people."""

    username: str | None
    secret: str = field(repr=False)


def import_vmcatcher(
    path: Path,
    *,
    anchors: Path,
    settings: Settings,
    database: Database,
    clock: Clock,
    secrets_directory: Path | None = None,
    dry_run: bool = False,
) -> tuple[Migrated, ...]:
    """Subscribe to every list that the vmcatcher database at ``path`` is subscribed to.

    Args:
        path: vmcatcher's SQLite file; it is only read.
        anchors: Trust anchors for all of them: vmcatcher's certificate directory.
        settings: How much a list may be, and how far ahead to warn.
        database: Where the subscriptions go.
        clock: Tells the time.
        secrets_directory: Where passwords go, a file each; None: nowhere.
        dry_run: Change nothing; only say what would be.

    Raises:
        UnreadableFileError: The database cannot be read, or is not vmcatcher's.
        TrustAnchorError: Nothing at ``anchors`` is a usable anchor.
    """
    foreign = read_vmcatcher(path)
    taker = _Taker(
        store=SubscriptionStore(database),
        anchors_path=anchors.absolute(),
        anchors=load_anchors(anchors.absolute()),
        settings=settings,
        clock=clock,
        secrets_directory=None if secrets_directory is None else secrets_directory.absolute(),
        dry_run=dry_run,
    )
    known = list(taker.store.all())
    found = []
    for each in foreign:
        taken = next((one for one in known if _is_same(one, each)), None)
        if taken is not None:
            found.append(_migrated(each, taken.name, Outcome.THERE))
            continue
        name = free_name(_wanted_name(each), {one.name for one in known}, each.identifier)
        try:
            subscription, notes = taker.take(each, name)
        except CoppiceError as problem:
            found.append(_migrated(each, None, Outcome.SKIPPED, error=problem))
            continue
        known.append(subscription)
        found.append(_migrated(each, name, Outcome.IMPORTED, notes=notes))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taker:
    """Takes one subscription after the other."""

    store: SubscriptionStore
    anchors_path: Path
    anchors: TrustAnchors
    settings: Settings
    clock: Clock
    secrets_directory: Path | None
    dry_run: bool

    def take(self, foreign: ForeignSubscription, name: str) -> tuple[Subscription, tuple[str, ...]]:
        """Subscribe as ``foreign`` does; return the subscription, and what its owner should know.

        Raises:
            InputError: It cannot be one here.
            StorageError, ExistsError: Its password cannot be kept.
        """
        notes: list[str] = []
        uri, login = _address(foreign)
        credential = None
        if login is not None:
            credential, said = self._credential(name, login)
            notes.append(said)
        selection, paused = _selection(foreign, notes)
        if foreign.trust_anchor == _NO_CHECK and uri.startswith("https:"):
            notes.append("vmcatcher did not check its server's certificate; it is checked now")
        now = self.clock.now()
        subscription = Subscription(
            name=name,
            uri=uri,
            list_identifier=ListIdentifier(foreign.identifier.lower()),
            trust=TrustPolicy(endorsers=_endorsers(foreign, notes), anchors=self.anchors_path),
            added_at=now,
            selection=selection,
            credential=credential,
            server_anchors=self.anchors_path if foreign.trust_anchor == _IGTF else None,
            paused_at=now if paused else None,
        )
        # Before anything is written: what cannot be a subscription leaves no password behind.
        check_subscription(subscription)
        if not self.dry_run:
            if login is not None and credential is not None and credential.secret_file is not None:
                _write_secret(credential.secret_file, login.secret)
            self.store.add(subscription)
            notes += self._last_list(subscription, foreign)
        return subscription, tuple(notes)

    def _credential(self, name: str, login: _Login) -> tuple[CredentialReference | None, str]:
        is_token = login.username is None
        what = "access token" if is_token else f"password of {login.username}"
        if self.secrets_directory is None:
            options = "--token-file FILE" if is_token else f"--username {login.username} --password-file FILE"
            return None, (
                f"its {what} was not copied: write it into a FILE that this user alone can read, then "
                f"`coppice subscription edit {name} {options}`"
            )
        path = self.secrets_directory / f"{name}.secret"
        reference = CredentialReference(kind=CredentialKind.BASIC, username=login.username, secret_file=path)
        return reference, f"its {what} is in {path}"

    def _last_list(self, subscription: Subscription, foreign: ForeignSubscription) -> list[str]:
        """Verify the list that vmcatcher verified last and keep it, so that nothing older is believed from now on."""
        if foreign.last_message is None:
            return []
        try:
            verified = verify_list(
                foreign.last_message,
                subscription=subscription,
                anchors=self.anchors,
                last=self.store.last_trusted(ListIdentifier(foreign.identifier.lower())),
                now=self.clock.now(),
                limits=self.settings.lists,
                terms=self.settings.subscriptions,
            )
            self.store.record(verified, foreign.last_message, as_of=subscription, terms=self.settings.subscriptions)
        except CoppiceError as problem:
            said = (
                f"version {foreign.last_version} of its list, which vmcatcher has, is not believed here "
                f"[{problem.code}]: {problem.message}; until a list is verified, nothing holds off an older one"
            )
            return [said]
        return [f"version {foreign.last_version} of its list, which vmcatcher has, was verified and is kept"]


def _address(foreign: ForeignSubscription) -> tuple[str, _Login | None]:
    """Return the address without what belongs to a login, and the login."""
    try:
        parts = urlsplit(foreign.uri)
        username, password = parts.username, parts.password
    except ValueError as problem:
        raise InputError(f"its address is none: {redact(foreign.uri[:200])}") from problem
    uri = _without_login(foreign.uri)
    username = foreign.username or (unquote(username) if username else None)
    password = foreign.password or (unquote(password) if password else None)
    if username is None and password is None:
        return uri, None
    if username is not None and password in {None, _OAUTH}:
        return uri, _Login(username=None, secret=username)
    return uri, _Login(username=username or "", secret=password or "")


def _without_login(uri: str) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def _endorsers(foreign: ForeignSubscription, notes: list[str]) -> tuple[PinnedEndorser, ...]:
    found = []
    for each in foreign.endorsers:
        if not each.authorised:
            notes.append(f"the endorser {each.subject} is linked, and not authorised: it is not trusted here")
            continue
        try:
            subject, issuer = DistinguishedName.parse(each.subject), DistinguishedName.parse(each.issuer)
        except ValueError as problem:
            notes.append(f"the endorser {each.subject[:200]!r} below {each.issuer[:200]!r} is left out: {problem}")
            continue
        found.append(PinnedEndorser(subject=subject, issuer=issuer))
    if not found:
        raise InputError(
            "no endorser is linked to it that could be trusted",
            details="\n".join(notes) or None,
            resolution="Find out from its publisher who signs it, and `coppice subscription add` it.",
        )
    return tuple(dict.fromkeys(found))


def _selection(foreign: ForeignSubscription, notes: list[str]) -> tuple[ImageSelection, bool]:
    """Return which images are wanted, and whether the subscription rests: an empty choice here means every image."""
    known = [each for each in foreign.images if is_uuid(each.identifier)]
    if len(known) != len(foreign.images):
        notes.append(f"{len(foreign.images) - len(known)} of its images have no UUID, and are left out of the choice")
    wanted = tuple(ImageIdentifier(each.identifier.lower()) for each in known if each.wanted)
    refused = tuple(ImageIdentifier(each.identifier.lower()) for each in known if not each.wanted)
    if not foreign.authorised:
        notes.append("vmcatcher does not use it: it is imported paused")
    if foreign.update_mode & _ACCEPT and foreign.update_mode & _SUBSCRIBE:
        notes.append(f"images that are new in the list are taken, as before; refused: {len(refused) or 'none'}")
        return ImageSelection(refused=refused), not foreign.authorised
    if not wanted:
        notes.append(
            "vmcatcher takes none of its images: it is imported paused; choose some by `coppice subscription edit "
            "NAME --image ID` before you resume it, since without a choice it takes all"
        )
        return ImageSelection(), True
    notes.append(f"{len(wanted)} images are taken, as before; those that are new in the list are not")
    return ImageSelection(images=wanted), not foreign.authorised


def _write_secret(path: Path, secret: str) -> None:
    """Keep a secret in a file of its own; what is in it already must be the same.

    Raises:
        ExistsError: The file has other content.
        StorageError: It cannot be written.
    """
    if "\n" in secret or "\r" in secret:
        raise InputError("its password has a line break, which no file of one line can hold")
    content = f"{secret}\n".encode()
    with atomic.storage_errors("making", path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.parent.stat().st_mode)
        there = path.read_bytes() if path.exists() else None
    if mode & 0o022:
        raise StorageError(
            f"others can write to {path.parent} (mode {mode:04o}): no password is put there",
            resolution=f"chmod 700 {path.parent}, or name another directory.",
        )
    if there is not None and there != content:
        raise ExistsError(
            f"the file {path} has something else in it", resolution="Move it away, or name another directory."
        )
    # Also when it is there: its mode may be another one.
    atomic.write_bytes(path, content, mode=0o600)


def _is_same(known: Subscription, foreign: ForeignSubscription) -> bool:
    if known.list_identifier is None:
        # It was never fetched: what it is known by is its address.
        return known.uri in {foreign.uri, _without_login(foreign.uri)}
    return known.list_identifier.lower() == foreign.identifier.lower()


def _wanted_name(foreign: ForeignSubscription) -> str:
    """Return what the address calls the list: of ``…/vo/NAME/image.list`` and ``…/NAME.list`` it is ``NAME``."""
    try:
        segments = [segment for segment in urlsplit(foreign.uri).path.split("/") if segment]
    except ValueError:
        segments = []
    for segment in reversed(segments):
        stem = segment.lower().removesuffix(".list").removesuffix(".json").removesuffix("_signed")
        if stem not in {"image", "imagelist", "image-list", "index", ""}:
            return stem
    return foreign.description or "list"


def _migrated(
    foreign: ForeignSubscription,
    name: str | None,
    outcome: Outcome,
    *,
    error: CoppiceError | None = None,
    notes: Iterable[str] = (),
) -> Migrated:
    return Migrated(
        kind="subscription",
        identifier=foreign.identifier,
        name=name,
        outcome=outcome,
        error=error,
        notes=tuple(notes),
    )
