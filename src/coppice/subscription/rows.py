# SPDX-License-Identifier: Apache-2.0
"""Between rows and what they stand for; a row that cannot be is an error, never a missing subscription."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.errors import DatabaseError, NotFoundError
from coppice.imagelist.model import Profile
from coppice.model.checksum import Checksum
from coppice.model.credential import CredentialKind, CredentialReference
from coppice.model.endorser import DistinguishedName
from coppice.model.identifiers import ImageIdentifier, ListIdentifier, is_uuid
from coppice.model.version import Version
from coppice.subscription.model import (
    ImageSelection,
    NamespacePolicy,
    PinnedEndorser,
    RevocationPolicy,
    SourceReference,
    Subscription,
    TrustedVersion,
    TrustPolicy,
)
from coppice.subscription.tables import SubscriptionEndorserRow, SubscriptionRow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.subscription.tables import TrustedVersionRow


def find_row(session: Session, name: str) -> SubscriptionRow:
    """Return the row of the subscription ``name``.

    Raises:
        NotFoundError: There is none.
    """
    row = session.get(SubscriptionRow, name)
    if row is None:
        known = ", ".join(session.scalars(select(SubscriptionRow.name).order_by(SubscriptionRow.name))) or "none yet"
        raise NotFoundError(
            f"there is no subscription {name[:80]!r}",
            details=f"there are: {known}",
            resolution="`coppice subscription add` makes one.",
        )
    return row


def write_row(row: SubscriptionRow, subscription: Subscription, *, now: datetime) -> None:
    """Bring ``row`` to what ``subscription`` says; endorsers that stay keep when they were added."""
    trust = subscription.trust
    row.name = subscription.name
    row.uri = subscription.uri
    row.list_identifier = canonical(subscription.list_identifier) if subscription.list_identifier else None
    row.driver = subscription.source.driver
    row.options = dict(subscription.source.options)
    row.anchors = "" if trust.anchors is None else str(trust.anchors)
    row.revocation = str(trust.revocation)
    row.namespaces = str(trust.namespaces)
    row.profile = str(trust.profile)
    row.trust_on_first_use = trust.trust_on_first_use
    row.allow_sha1 = trust.allow_sha1
    row.allow_host_certificate = trust.allow_host_certificate
    row.selection = _selection_as_json(subscription.selection)
    row.credential = _credential_as_json(subscription.credential)
    row.server_anchors = None if subscription.server_anchors is None else str(subscription.server_anchors)
    row.added_at = subscription.added_at
    row.paused_at = subscription.paused_at
    kept = {_endorser(each): each for each in row.endorsers}
    row.endorsers = [kept.get(each) or _endorser_row(each, now) for each in dict.fromkeys(trust.endorsers)]


def read_row(row: SubscriptionRow) -> Subscription:
    """Return the subscription that ``row`` keeps.

    Raises:
        DatabaseError: It holds something that cannot be.
    """
    try:
        return Subscription(
            name=row.name,
            uri=row.uri,
            list_identifier=ListIdentifier(row.list_identifier) if row.list_identifier else None,
            trust=TrustPolicy(
                endorsers=tuple(_endorser(each) for each in row.endorsers),
                anchors=_path(row.anchors),
                revocation=RevocationPolicy(row.revocation),
                namespaces=NamespacePolicy(row.namespaces),
                trust_on_first_use=row.trust_on_first_use,
                allow_sha1=row.allow_sha1,
                allow_host_certificate=row.allow_host_certificate,
                profile=Profile(row.profile),
            ),
            selection=_selection(row.selection),
            added_at=row.added_at,
            credential=_credential(row.credential),
            server_anchors=Path(row.server_anchors) if row.server_anchors else None,
            paused_at=row.paused_at,
            source=SourceReference(driver=row.driver, options=_options(row.options)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise damaged(f"subscription {row.name!r}", problem) from problem


def read_trusted(row: TrustedVersionRow) -> TrustedVersion:
    """Return the floor that ``row`` keeps.

    Raises:
        DatabaseError: It holds something that cannot be.
    """
    try:
        Version(row.version)
        checksum = Checksum("sha512", row.payload_sha512)
    except ValueError as problem:
        raise damaged(f"list {row.list_identifier}", problem) from problem
    return TrustedVersion(version=row.version, payload_checksum=checksum, created=row.created)


def damaged(what: str, problem: Exception) -> DatabaseError:
    """Return the error for a row that holds something that cannot be."""
    return DatabaseError(
        f"the database holds something that cannot be about {what}: {problem}",
        resolution="Restore the database from a backup. What is registered in clouds is not touched.",
    )


def name_pairs(name: DistinguishedName) -> list[list[str]]:
    """Return a name as JSON keeps it."""
    return [list(pair) for pair in name.attributes]


def canonical(identifier: str) -> str:
    """Return an identifier in its one spelling: UUIDs in lower case, all else (the lenient profile's) as it is."""
    return identifier.lower() if is_uuid(identifier) else identifier


def _endorser_row(endorser: PinnedEndorser, now: datetime) -> SubscriptionEndorserRow:
    return SubscriptionEndorserRow(
        subject=name_pairs(endorser.subject),
        issuer=name_pairs(endorser.issuer),
        fingerprint=endorser.fingerprint.hexdigest if endorser.fingerprint is not None else None,
        first_use=endorser.first_use,
        added_at=now,
    )


def _endorser(row: SubscriptionEndorserRow) -> PinnedEndorser:
    return PinnedEndorser(
        subject=DistinguishedName.of(*((kind, value) for kind, value in row.subject)),
        issuer=DistinguishedName.of(*((kind, value) for kind, value in row.issuer)),
        fingerprint=Checksum("sha256", row.fingerprint) if row.fingerprint else None,
        first_use=row.first_use,
    )


def _selection_as_json(selection: ImageSelection) -> dict[str, object]:
    return {
        "images": [canonical(identifier) for identifier in selection.images],
        "refused": [canonical(identifier) for identifier in selection.refused],
        "vos": list(selection.vos),
        "operating_systems": list(selection.operating_systems),
        "architectures": list(selection.architectures),
        "expression": selection.expression,
    }


def _selection(kept: Mapping[str, object]) -> ImageSelection:
    unknown = kept.keys() - {"images", "refused", "vos", "operating_systems", "architectures", "expression"}
    if unknown:
        # A condition that this version does not know must not be passed over: more would be wanted than was meant.
        message = f"a selection by {', '.join(sorted(unknown))}"
        raise ValueError(message)
    expression = kept.get("expression")
    if expression is not None and not isinstance(expression, str):
        message = "an expression that is no text"
        raise TypeError(message)
    return ImageSelection(
        images=tuple(ImageIdentifier(each) for each in _texts(kept, "images")),
        refused=tuple(ImageIdentifier(each) for each in _texts(kept, "refused")),
        vos=_texts(kept, "vos"),
        operating_systems=_texts(kept, "operating_systems"),
        architectures=_texts(kept, "architectures"),
        expression=expression,
    )


def _options(kept: object) -> Mapping[str, object]:
    if not isinstance(kept, dict):
        message = "options that are no object"
        raise TypeError(message)
    return kept


def _texts(kept: Mapping[str, object], key: str) -> tuple[str, ...]:
    values = kept.get(key, [])
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        message = f"a selection by {key} that is no list of texts"
        raise TypeError(message)
    return tuple(values)


def _credential_as_json(credential: CredentialReference | None) -> dict[str, str | None] | None:
    if credential is None:
        return None
    return {
        "kind": str(credential.kind),
        "username": credential.username,
        "secret_file": _path_text(credential.secret_file),
        "secret_variable": credential.secret_variable,
        "certificate": _path_text(credential.certificate),
        "key": _path_text(credential.key),
    }


def _credential(kept: Mapping[str, str | None] | None) -> CredentialReference | None:
    if kept is None:
        return None
    return CredentialReference(
        kind=CredentialKind(kept["kind"] or ""),
        username=kept.get("username"),
        secret_file=_path(kept.get("secret_file")),
        secret_variable=kept.get("secret_variable"),
        certificate=_path(kept.get("certificate")),
        key=_path(kept.get("key")),
    )


def _path_text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
