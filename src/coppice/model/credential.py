# SPDX-License-Identifier: Apache-2.0
"""How somebody shows a server who they are: where the secret lies, never the secret itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class CredentialKind(StrEnum):
    """How a credential is shown."""

    BASIC = "basic"
    """HTTP basic: user name and password; marketplaces take an access token as the user name."""
    BEARER = "bearer"
    """HTTP bearer token."""
    CLIENT_CERTIFICATE = "client-certificate"
    """A TLS client certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialReference:
    """Where a credential lies. It can be stored and shown: there is no secret in it.

    Attributes:
        kind: How it is shown.
        username: For basic, when the secret is the password. None for basic: the secret is an access token, shown as
            the user name with the password ``x-oauth-basic``.
        secret_file: File whose first line is the secret, or the passphrase of the client key.
        secret_variable: Environment variable that holds the secret instead.
        certificate: PEM file of the client certificate, with its chain.
        key: PEM file of the client key; None: it is in the same file.
    """

    kind: CredentialKind
    username: str | None = None
    secret_file: Path | None = None
    secret_variable: str | None = None
    certificate: Path | None = None
    key: Path | None = None
