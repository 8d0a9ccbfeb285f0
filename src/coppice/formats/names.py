# SPDX-License-Identifier: Apache-2.0
"""The names in certificates, as `DistinguishedName`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.model.endorser import DistinguishedName

if TYPE_CHECKING:
    from cryptography import x509


def distinguished_name(name: x509.Name) -> DistinguishedName:
    """Return the structure of ``name``.

    A relative name of several attributes becomes one pair that no written name can equal: nobody can pin it, and it
    imitates nobody.
    """
    pairs = []
    for relative in name.rdns:
        attributes = sorted((attribute.oid.dotted_string, _text(attribute.value)) for attribute in relative)
        if len(attributes) == 1:
            pairs.append(attributes[0])
        else:
            kinds, values = zip(*attributes, strict=True)
            pairs.append(("+".join(kinds), "+".join(values)))
    return DistinguishedName.of(*pairs)


def _text(value: str | bytes) -> str:
    # Only a bit string (x500UniqueIdentifier) comes as bytes.
    return value if isinstance(value, str) else value.hex()
