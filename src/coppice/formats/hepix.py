# SPDX-License-Identifier: Apache-2.0
"""The HEPiX image list: JSON bytes ⇄ `ImageList`.

The format nests ``hv:imagelist`` → ``hv:images`` → ``hv:image``; keys carry the prefix of who coined them: ``dc:``
Dublin Core, ``sl:`` StratusLab, ``hv:`` HEPiX, ``ad:`` AppDB. Its keys, profiles and limits:
``docs/reference/image-list.md``; its form as a JSON Schema: ``hepix.schema.json`` beside this module.
"""

from __future__ import annotations

from coppice.formats.hepix_read import MAX_ENDORSERS, MAX_IDENTIFIER_BYTES, read_list
from coppice.formats.hepix_write import write_list

__all__ = ["MAX_ENDORSERS", "MAX_IDENTIFIER_BYTES", "read_list", "write_list"]
