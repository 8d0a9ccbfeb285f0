# SPDX-License-Identifier: Apache-2.0
"""`Editor`: makes editions of a list for a publisher: image files, and a signed list that names them where they go."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from coppice.formats.delta_limits import DELTA_FORMAT
from coppice.formats.hepix import read_list
from coppice.imagelist.model import SignedImageList
from coppice.model.checksum import Checksum
from coppice.monitor import SILENT
from coppice.testing.authority import Authority
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.imagelist.model import Publication, Publisher
    from coppice.testing.authority import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """One version of a list, ready to be published.

    Attributes:
        signed: The list.
        payload: What was signed.
        files: Image name → local path.
    """

    signed: SignedImageList
    payload: bytes
    files: Mapping[str, Path]

    def publish(self, publisher: Publisher, list_name: str = "demo") -> Publication:
        """Publish it."""
        publisher.prepare(self.files, SILENT)
        return publisher.publish(list_name, self.signed, self.files, SILENT)


class Editor:
    """Makes images and lists.

    Args:
        directory: Where image files are made.
        seed: Of the images' bytes.
    """

    def __init__(self, directory: Path, seed: int = 1) -> None:
        self._directory = directory
        authority, endorser = _signer()
        self._simulator = Simulator.create(authority, endorser=endorser)
        self._random = random.Random(seed)  # noqa: S311 - bytes of test images
        self._version = 0

    def image(self, name: str, size_bytes: int = 1000) -> Path:
        """Make an image file of random bytes."""
        path = self._directory / name
        path.write_bytes(self._random.randbytes(size_bytes))
        return path

    def edition(
        self, publisher: Publisher, files: Mapping[str, Path], parts: Mapping[str, Path] = MappingProxyType({})
    ) -> Edition:
        """Return the next version of the list, with these images where the publisher will put them.

        Args:
            publisher: Where that is.
            files: The images.
            parts: Files of the first image's delta: an index, then packs.
        """
        publisher.prepare({**files, **parts}, SILENT)
        self._version += 1
        simulator = self._simulator
        simulator.version = str(self._version)
        simulator.images.clear()
        simulator.files.clear()
        for name, path in files.items():
            simulator.add_image(title=name, data=path.read_bytes())["hv:uri"] = publisher.image_uri(name)
        if parts:
            index, *packs = (
                {"uri": publisher.image_uri(name), "size": path.stat().st_size, "sha512": _sha512(path)}
                for name, path in parts.items()
            )
            simulator.images[0]["coppice:delta"] = {
                "format": DELTA_FORMAT,
                "guest": {"size": 1, "sha512": "0" * 128},
                "index": index,
                "packs": packs,
                "patches": [],
            }
        payload = simulator.payload()
        signed = SignedImageList(
            content=read_list(payload),
            message=simulator.message(payload=payload),
            payload_checksum=Checksum.of(payload),
            signer=simulator.endorser.subject,
        )
        return Edition(signed=signed, payload=payload, files={**parts, **files})


def _sha512(path: Path) -> str:
    return Checksum.of(path.read_bytes()).hexdigest


@cache
def _signer() -> tuple[Authority, Identity]:
    """Make keys once a process: they take longer than all else here."""
    authority = Authority.create("Example CA")
    return authority, authority.issue("Jane Doe")
