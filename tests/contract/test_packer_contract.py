# SPDX-License-Identifier: Apache-2.0
"""The builder ``packer`` keeps to what every builder does, with a stand-in for Packer."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.definition.read import read_definition
from coppice.factory.acceleration import Measurement
from coppice.factory.builders import load_builder
from coppice.factory.machine import Acceleration
from coppice.factory.model import BuildOptions
from coppice.factory.packer import prepared
from coppice.testing.contracts.builders import BuilderContract, BuilderStand
from coppice.testing.packer_stand import DISK_BYTES, GOOD, lay_packer, small_disk, start_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.definition.model import Definition

pytestmark = pytest.mark.contract

SHIPPED = read_definition(Path(__file__).parents[2] / "definitions" / "debian-12")


class PackerStand(BuilderStand):
    builder = load_builder("packer")
    # A running machine writes what and when it likes.
    gives_same_bytes = False

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        (place / "disk").mkdir()
        self.disk = small_disk(place / "disk")
        self.program = lay_packer(place / "stand-in", self.disk)

    def definition(self) -> Definition:
        qemu = start_of(self.disk)
        return replace(SHIPPED, name="own", builder="packer", disk_size_bytes=DISK_BYTES, platforms={"qemu": qemu})

    def options(self) -> BuildOptions:
        return BuildOptions(timeout_seconds=120)

    @contextmanager
    def failing(self) -> Iterator[Definition]:
        plan = self.program / "plan"
        plan.write_text('say("==> qemu: Timeout waiting for SSH.", "error")\nsys.exit(1)\n')
        yield self.definition()
        plan.write_text(GOOD)


@pytest.fixture(scope="module")
def made_stand(tmp_path_factory):
    return PackerStand(tmp_path_factory.mktemp("packer"))


class TestPackerBuilder(BuilderContract):
    @pytest.fixture
    def stand(self, made_stand, monkeypatch):
        monkeypatch.setenv("PATH", f"{made_stand.program}:{os.environ['PATH']}")
        found = Measurement(acceleration=Acceleration.TCG, reason="")
        monkeypatch.setattr(prepared, "choose_acceleration", lambda *_, **__: found)
        return made_stand
