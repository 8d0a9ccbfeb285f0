# SPDX-License-Identifier: Apache-2.0
"""Who vouches for an image list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.model.distinguished_name import MAX_NAME_LENGTH, DistinguishedName

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_NAME_LENGTH", "DistinguishedName", "Endorser"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorser:
    """Who confirms that a list's images were made as its policy demands.

    Attributes:
        name: ``dc:creator``.
        email: ``hv:email``.
        subject: ``hv:dn``: the subject of the endorser's certificate.
        issuer: ``hv:ca``: the subject of the authority that issued it.
        extra: Keys beside these that Coppice does not know, as they were written.
        wrapper_extra: Keys beside ``hv:x509`` that Coppice does not know, as they were written.
    """

    name: str
    email: str
    subject: DistinguishedName
    issuer: DistinguishedName
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)
    wrapper_extra: Mapping[str, object] = field(default_factory=dict, hash=False)
