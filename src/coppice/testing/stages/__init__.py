# SPDX-License-Identifier: Apache-2.0
"""What each source is shown on by its contract suite: one class a source, with the real server that it needs.

`tests/contract/test_sources.py` asks the same of each. A source of a third party is shown on by a `SourceStage` of its
own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.testing.stages.files import FilesByClearKey, FilesByDetachedKey, FilesByTransport
from coppice.testing.stages.hepix import HepixInBucket, HepixInFolder, HepixInRegistry, HepixOverHttp
from coppice.testing.stages.local import Descriptors, OwnCatalogue
from coppice.testing.stages.oci import OciByKey, OciByTransport
from coppice.testing.stages.simplestreams import StreamsByKey, StreamsByTransport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.testing.stages.stage import SourceStage

STAGES: Mapping[str, type[SourceStage]] = {
    "hepix": HepixOverHttp,
    "hepix-folder": HepixInFolder,
    "hepix-oci": HepixInRegistry,
    "hepix-s3": HepixInBucket,
    "catalogue": OwnCatalogue,
    "descriptors": Descriptors,
    "oci-transport": OciByTransport,
    "oci-cosign": OciByKey,
    "simplestreams-openpgp": StreamsByKey,
    "simplestreams-transport": StreamsByTransport,
    "files-detached": FilesByDetachedKey,
    "files-clear-signed": FilesByClearKey,
    "files-transport": FilesByTransport,
}
"""Name of a stage → its class; several may be of one driver."""
