# SPDX-License-Identifier: Apache-2.0
"""Take over a list that somebody published before: signed bytes → verified → catalogue.

Its identifiers and its version are kept, so that its subscribers notice nothing. Its images stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.catalogue.endorsers import Endorsers
from coppice.catalogue.intake import ForeignList, ForeignVersion, Intake, SignedBytes
from coppice.catalogue.keys import LONGEST_LIFETIME_DAYS
from coppice.catalogue.model import ReferencedImage
from coppice.errors import InconsistentListError
from coppice.imagelist.compose import BUILT_ON_KEY
from coppice.subscription.anchors import load_anchors
from coppice.subscription.model import PinnedEndorser, Subscription
from coppice.subscription.rules import verify_list
from coppice.workflows.listed_sets import built_on

if TYPE_CHECKING:
    from coppice.catalogue.intake import IntakeReport
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.imagelist.model import ImageList, ListedImage
    from coppice.settings.model import Settings
    from coppice.subscription.model import TrustPolicy, VerifiedImageList

_OF_COPPICE = "coppice:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What was imported.

    Attributes:
        verified: The list, as it was verified.
        intake: What came into the catalogue.
        warnings: What the publisher should know.
    """

    verified: VerifiedImageList
    intake: IntakeReport
    warnings: tuple[str, ...]


def import_list(
    message: bytes,
    *,
    name: str,
    endorser: str,
    publisher: str,
    trust: TrustPolicy,
    settings: Settings,
    database: Database,
    clock: Clock,
    dry_run: bool = False,
) -> ImportReport:
    """Verify a signed list, and bring it and its images into the catalogue, the images by reference.

    Args:
        message: The signed list.
        name: What it is called here.
        endorser: Name of the endorser who signs its further versions.
        publisher: Name of the publisher that its further versions go to.
        trust: Who must have signed, and what anchors lead there. Without an endorser in it, it must be the one above.
        settings: Publishers and limits.
        database: Where the catalogue is.
        clock: Tells the time.
        dry_run: Change nothing; only say what would be.

    Raises:
        TrustError: The list is refused.
        InconsistentListError: It has entries that cannot be read, or contradicts itself.
        NotFoundError: The endorser cannot sign here.
        ExistsError, StateError, VersionExistsError: It contradicts what the catalogue has.
    """
    own = _own(Endorsers(database), endorser)
    if not trust.endorsers:
        if own is None:
            raise InconsistentListError(
                f"whose certificate {endorser} has is not written down", resolution="Say who signed the list."
            )
        trust = _pinning(trust, own)
    now = clock.now()
    subscription = Subscription(name=name, uri="", list_identifier=None, trust=trust, added_at=now)
    verified = verify_list(
        message,
        subscription=subscription,
        anchors=load_anchors(trust.anchors),
        last=None,
        now=now,
        limits=settings.lists,
        terms=settings.subscriptions,
    )
    content = verified.content
    if content.unreadable:
        raise InconsistentListError(
            f"{len(content.unreadable)} images of the list cannot be read, and would be lost",
            details="\n".join(f"{entry.identifier}: {entry.problem}" for entry in content.unreadable[:50]),
        )
    foreign = _foreign(verified, message, name=name, endorser=endorser, publisher=publisher)
    intake = Intake(database, clock).take(foreign, publishers=set(settings.publishers), dry_run=dry_run)
    return ImportReport(verified=verified, intake=intake, warnings=tuple(_warnings(verified, intake, own, endorser)))


def _own(endorsers: Endorsers, name: str) -> PinnedEndorser | None:
    identity = endorsers.get(name)
    if identity.subject is None or identity.issuer is None:
        return None
    return PinnedEndorser(subject=identity.subject, issuer=identity.issuer)


def _pinning(trust: TrustPolicy, endorser: PinnedEndorser) -> TrustPolicy:
    from dataclasses import replace

    return replace(trust, endorsers=(endorser,))


def _foreign(verified: VerifiedImageList, message: bytes, *, name: str, endorser: str, publisher: str) -> ForeignList:
    content = verified.content
    lifetime = content.validity.expires - content.validity.created
    return ForeignList(
        name=name,
        identifier=content.identifier,
        version=content.version,
        title=content.title,
        description=content.description,
        source=content.source,
        vo=content.vo,
        endorser=endorser,
        publisher=publisher,
        lifetime_days=min(max(1, round(lifetime / timedelta(days=1))), LONGEST_LIFETIME_DAYS),
        keys=without_ours({**content.extra, **({} if content.swid is None else {"ad:swid": content.swid})}),
        versions=tuple(foreign_version(content, image) for image in content.images),
        signed=SignedBytes(
            message=message,
            payload=verified.payload_checksum,
            signer=str(verified.signer),
            uri=content.uri,
            expires=content.validity.expires,
        ),
    )


def foreign_version(content: ImageList, image: ListedImage) -> ForeignVersion:
    """Return an image of a list as the catalogue takes it in: by reference, with its identifier and version."""
    user = image.user
    keys: dict[str, object] = {
        **image.extra,
        "ad:base_mpuri": image.base_mpuri,
        "ad:appid": image.appliance_id,
        "ad:user:fullname": user.full_name if user is not None else None,
        "ad:user:guid": user.guid if user is not None else None,
        "ad:user:uri": user.uri if user is not None else None,
        "ad:traffic_in": image.traffic_in,
        "ad:traffic_out": image.traffic_out,
    }
    return ForeignVersion(
        identifier=image.identifier,
        version=image.version,
        title=image.title,
        description=image.description,
        groups=image.groups,
        operating_system=image.operating_system,
        requirements=image.requirements,
        hypervisor=image.hypervisor,
        comments=image.comments,
        image=ReferencedImage(
            uri=image.uri, format=image.declared_format, size_bytes=image.size_bytes, checksum=image.checksum
        ),
        created=content.validity.created,
        # An image that ends with its list has no end of its own.
        expires=image.expires if image.expires != content.validity.expires else None,
        mpuri=image.mpuri,
        keys=without_ours({key: value for key, value in keys.items() if value is not None}),
        built_on=built_on(image),
    )


def without_ours(keys: dict[str, object]) -> dict[str, object]:
    """Return keys without those that are computed from the catalogue: it has none of the sets that came in."""
    return {key: value for key, value in keys.items() if not key.startswith(_OF_COPPICE)}


def _warnings(
    verified: VerifiedImageList, intake: IntakeReport, own: PinnedEndorser | None, endorser: str
) -> list[str]:
    said = []
    if own is None or (own.subject, own.issuer) != (verified.signer, verified.signer_issuer):
        said.append(
            f"{verified.signer} signed it, and {endorser} will: subscribers refuse that until they name {endorser} too"
        )
    if intake.absent:
        said.append(f"the list carries here, and did not there: {', '.join(intake.absent)}")
    told = {key for image in verified.content.images for key in image.extra} - {BUILT_ON_KEY}
    if any(key.startswith(_OF_COPPICE) for key in told):
        said.append("sets and successors that the list tells of are not taken over: make them here")
    return said
