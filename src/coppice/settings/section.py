# SPDX-License-Identifier: Apache-2.0
"""A table of the settings file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the file: what it does not declare is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
