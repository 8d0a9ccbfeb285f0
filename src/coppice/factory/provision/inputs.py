# SPDX-License-Identifier: Apache-2.0
"""What provisioners bring into a build, known by its digest. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from coppice.factory.model import BuildInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.definition.model import Definition


def provision_inputs(definition: Definition) -> tuple[BuildInput, ...]:
    """Return one input for each provisioner of ``definition``: the digest of its files, by their paths."""
    return tuple(
        BuildInput(name=f"provisioner {provisioner.name}", uri="", digest=f"sha256:{_digest(provisioner.files)}")
        for provisioner in definition.provisioners
    )


def _digest(files: Mapping[str, bytes]) -> str:
    said = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
