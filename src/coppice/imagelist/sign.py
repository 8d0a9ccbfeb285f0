# SPDX-License-Identifier: Apache-2.0
"""Sign an image list with an endorser's certificate and key, and look at the result as a subscriber would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import EndorserMismatchError, TamperedListError
from coppice.formats.cms import open_message
from coppice.formats.cms_sign import sign
from coppice.formats.hepix import read_list, write_list
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.imagelist.keys import require_usable
from coppice.imagelist.model import SignedImageList
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.formats.limits import ListLimits
    from coppice.imagelist.keys import SigningIdentity
    from coppice.imagelist.model import ImageList


def sign_list(
    content: ImageList, identity: SigningIdentity, now: datetime, *, limits: ListLimits = DEFAULT_LIMITS
) -> SignedImageList:
    """Return ``content`` signed; what is returned was opened and read again.

    Args:
        content: The list; it names the signer as its endorser.
        identity: The signer.
        now: The time that the signature claims.
        limits: How much a list may be.

    Raises:
        EndorserMismatchError: The list names another endorser, or one whose name does not survive being written.
        SignerExpiredError: The certificate is not valid at ``now``.
        SignerUsageError: The certificate is not for signing.
        KeyTokenError: The token that keeps the key failed.
        CredentialError: The token refused the PIN.
        DocumentError: The content cannot be written as an image list.
    """
    _check_signer(content, identity, now)
    payload = write_list(content)
    message = sign(
        payload,
        certificate=identity.certificate,
        key=identity.signer,
        chain=identity.chain,
        digest=identity.digest,
        signing_time=now,
    )
    opened = open_message(message, limits=limits)
    read = read_list(opened.payload, limits=limits)
    if not read.names_endorser(identity.endorser.subject, identity.endorser.issuer):
        raise EndorserMismatchError(
            f"the name {identity.endorser.subject} is ambiguous in an image list, and every subscriber would refuse it",
            resolution="Use a certificate whose name contains no '/…=' inside a value.",
        )
    if read != content:
        raise TamperedListError("the signed list does not read as what was to be signed")
    return SignedImageList(
        content=content,
        message=message,
        payload_checksum=Checksum.of(opened.payload),
        signer=identity.endorser.subject,
    )


def _check_signer(content: ImageList, identity: SigningIdentity, now: datetime) -> None:
    own = identity.endorser
    if not content.names_endorser(own.subject, own.issuer):
        named = ", ".join(str(each.subject) for each in content.endorsers) or "nobody"
        raise EndorserMismatchError(f"the list names as endorser {named}, the signer is {own.subject}")
    require_usable(identity, now)
