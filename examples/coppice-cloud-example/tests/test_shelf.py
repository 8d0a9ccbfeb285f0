# SPDX-License-Identifier: Apache-2.0
"""The shelf, held to Coppice's suite of clouds; it is opened as Coppice opens it, by its entry point."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cloud.clouds import open_cloud
from coppice.errors import SettingsError
from coppice.settings.clouds import CloudSettings
from coppice.testing.contracts.cloud_abilities import DriftContract, UseContract
from coppice.testing.contracts.clouds import CloudContract
from coppice.testing.contracts.stand import CloudStand, DriftStand, UseStand
from coppice.testing.desired import SITE

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import Presentation, RegisteredImage


def settings(path: Path, site: str = SITE, **options: object) -> CloudSettings:
    return CloudSettings(name="test", driver="shelf", site=site, formats=(), options={"path": str(path), **options})


class ShelfStand(CloudStand, DriftStand, UseStand):
    """Looks at the cards, as users of this cloud do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cloud = open_cloud(settings(path))
        self.foreign: dict[str, dict[str, Any]] = {}

    def of_site(self, site: str) -> Cloud:
        return open_cloud(settings(self.path, site))

    def add_foreign(self, name: str) -> None:
        self.path.mkdir(exist_ok=True)
        identifier = f"theirs{len(self.foreign)}"
        card = {"name": name, "properties": {"owner": "them"}, "is_whole": True, "is_listed": True}
        self.foreign[identifier] = card
        (self.path / f"{identifier}.card").write_text(json.dumps(card))
        (self.path / f"{identifier}.disk").write_bytes(b"theirs")
        (self.path / "nonsense.card").write_text("{not json")

    def foreign_is_whole(self) -> bool:
        return (self.path / "nonsense.card").read_text() == "{not json" and all(
            json.loads((self.path / f"{identifier}.card").read_text()) == card
            and (self.path / f"{identifier}.disk").read_bytes() == b"theirs"
            for identifier, card in self.foreign.items()
        )

    def break_off(self, image: RegisteredImage) -> None:
        self._change(image, is_whole=False)
        (self.path / f"{image.cloud_identifier}.disk").unlink()

    def damage_marker(self, image: RegisteredImage) -> None:
        self._change(image, properties={**self._card(image)["properties"], "coppice_state": "ripe"})

    def delete_behind(self, image: RegisteredImage) -> None:
        for suffix in ("card", "disk"):
            (self.path / f"{image.cloud_identifier}.{suffix}").unlink()

    def can_start(self, image: RegisteredImage) -> bool:
        disk = self.path / f"{image.cloud_identifier}.disk"
        return bool(self._card(image)["is_startable"]) and disk.is_file()

    def is_listed(self, image: RegisteredImage) -> bool:
        return bool(self._card(image)["is_listed"])

    def check_shown(self, image: RegisteredImage, presentation: Presentation) -> None:
        card = self._card(image)
        assert card["name"] == presentation.name
        assert {**presentation.facts, **presentation.properties}.items() <= card["properties"].items()

    def list_by_hand(self, image: RegisteredImage) -> None:
        self._change(image, is_listed=True)

    def unlist_by_hand(self, image: RegisteredImage) -> None:
        self._change(image, is_listed=False)

    def enable_by_hand(self, image: RegisteredImage) -> None:
        self._change(image, is_startable=True)

    def disable_by_hand(self, image: RegisteredImage) -> None:
        self._change(image, is_startable=False)

    def use(self, image: RegisteredImage) -> None:
        self._change(image, in_use=True)

    def end_use(self, image: RegisteredImage) -> None:
        self._change(image, in_use=False)

    def _card(self, image: RegisteredImage) -> dict[str, Any]:
        card: dict[str, Any] = json.loads((self.path / f"{image.cloud_identifier}.card").read_text())
        return card

    def _change(self, image: RegisteredImage, **changes: object) -> None:
        card = {**self._card(image), **changes}
        (self.path / f"{image.cloud_identifier}.card").write_text(json.dumps(card))


class TestShelf(CloudContract, DriftContract, UseContract):
    @pytest.fixture
    def stand(self, tmp_path: Path) -> ShelfStand:
        return ShelfStand(tmp_path / "cloud")


def test_an_option_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"clouds\.test\.pathh is not an option"):
        open_cloud(settings(tmp_path, pathh="x"))
