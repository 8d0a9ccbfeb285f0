# SPDX-License-Identifier: Apache-2.0
"""What the tests of paths share: check one signer against anchors in memory or in a directory."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice.subscription.anchors import TrustAnchors
from coppice.subscription.model import TrustPolicy
from coppice.subscription.path import CheckedPath, check_path

if TYPE_CHECKING:
    from coppice.testing.authority import Authority, Identity

NOW = datetime.now(UTC)


def anchors_of(*authorities: Authority, crls: Any = None) -> TrustAnchors:
    """Return anchors in memory, each with its CRL unless told otherwise."""
    return TrustAnchors(
        certificates=tuple(each.identity.certificate for each in authorities),
        crls=tuple(each.crl() for each in authorities) if crls is None else tuple(crls),
        path=Path("/anchors"),
    )


def check(signer: Identity, anchors: TrustAnchors, *, at: datetime = NOW, **policy: Any) -> CheckedPath:
    """Check the path of ``signer``, whose chain came with the message."""
    trust = TrustPolicy(endorsers=(), anchors=anchors.path, **policy)
    return check_path(signer.certificate, signer.chain, anchors, trust=trust, dates_at=at, now=at)
