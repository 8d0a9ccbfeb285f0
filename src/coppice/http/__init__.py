# SPDX-License-Identifier: Apache-2.0
"""The one HTTP client: limits on size, time and rate; redirect and address rules; credentials, conditions, retries."""

from __future__ import annotations

from coppice.http.access import Access, credential_for, server_anchors_for
from coppice.http.client import Client, same_origin
from coppice.http.credential import Credential, resolve_credential
from coppice.http.message import BodyFile, Fetched, Reply, Validators
from coppice.http.registry import Registry

__all__ = [
    "Access",
    "BodyFile",
    "Client",
    "Credential",
    "Fetched",
    "Registry",
    "Reply",
    "Validators",
    "credential_for",
    "resolve_credential",
    "same_origin",
    "server_anchors_for",
]
