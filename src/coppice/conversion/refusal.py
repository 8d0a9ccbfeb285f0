# SPDX-License-Identifier: Apache-2.0
"""How a refusal is told here; the readers of `coppice.formats` tell theirs in the same way."""

from __future__ import annotations

from coppice.formats.refusal import NO_TOOL_OPENED_IT, refusal

__all__ = ["NO_TOOL_OPENED_IT", "refusal"]
