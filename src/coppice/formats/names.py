# SPDX-License-Identifier: Apache-2.0
"""The names in certificates, as `DistinguishedName`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.model.endorser import DistinguishedName

if TYPE_CHECKING:
    from cryptography import x509


def distinguished_name(name: x509.Name) -> DistinguishedName:
    """Return the structure of ``name``."""
    return DistinguishedName.of_relatives(
        [(attribute.oid.dotted_string, _text(attribute.value)) for attribute in relative] for relative in name.rdns
    )


def _text(value: str | bytes) -> str:
    # Only a bit string (x500UniqueIdentifier) comes as bytes.
    return value if isinstance(value, str) else value.hex()
