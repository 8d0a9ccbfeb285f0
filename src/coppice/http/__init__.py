# SPDX-License-Identifier: Apache-2.0
"""The one HTTP client: limits on size, time and rate; redirect and address rules; retries."""

from __future__ import annotations

from coppice.http.client import Client

__all__ = ["Client"]
