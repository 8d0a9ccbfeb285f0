# SPDX-License-Identifier: Apache-2.0
"""The builders, held to the suite, with stand-ins of what takes minutes; building for real is in the campaigns."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.definition.model import Start
from coppice.definition.read import read_definition
from coppice.errors import BuildError
from coppice.factory import builders
from coppice.factory.bootstrap import supported
from coppice.factory.builders import BUILT_IN, load_builder
from coppice.factory.model import BuilderOutput, BuildOptions, BuiltImage
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.testing.bootstrapper import DISK_BYTES, lay_bootstrapper
from coppice.testing.contracts.builders import BuilderContract, BuilderStand
from coppice.workflows.start_images import StartImages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.definition.model import Definition

pytestmark = pytest.mark.contract

SHIPPED = read_definition(Path(__file__).parents[2] / "definitions" / "debian-12")
DEFINITION = replace(SHIPPED, name="base", disk_size_bytes=DISK_BYTES)


class MemoryBuilder:
    """Somebody else's: makes a raw disk of zeros; needs no tools."""

    name = "memory"
    version = "1"

    def build(self, definition, into, options, monitor):
        if definition.formats != (DiskFormat.RAW,):
            raise BuildError(f"memory writes raw only, no {definition.formats[0].value}")
        if definition.packages:
            raise BuildError("memory installs nothing")
        with monitor.task("building") as task:
            task.reach(1)
            path = into / "disk.raw"
            path.write_bytes(bytes(512))
        facts = Image(format=DiskFormat.RAW, size_bytes=512, virtual_size_bytes=512, checksum=Checksum.of(bytes(512)))
        return BuilderOutput(images=(BuiltImage(path=path, image=facts),), packages=(), tools=())


class MemoryPoint:
    name = "memory"
    value = "tests:MemoryBuilder"

    def load(self):
        return MemoryBuilder


class MemoryStand(BuilderStand):
    builder = MemoryBuilder()
    needs_tools = False

    def definition(self) -> Definition:
        return replace(DEFINITION, formats=(DiskFormat.RAW,))

    def options(self) -> BuildOptions:
        return BuildOptions()

    @contextmanager
    def failing(self) -> Iterator[Definition]:
        yield replace(self.definition(), packages=("more",))


class BootstrapStand(BuilderStand):
    builder = load_builder("bootstrap")

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.scripts = lay_bootstrapper(place / "stand-in")

    def definition(self) -> Definition:
        return DEFINITION

    def options(self) -> BuildOptions:
        return BuildOptions()

    @contextmanager
    def failing(self) -> Iterator[Definition]:
        script = self.scripts / "child.sh"
        before = script.read_text()
        script.write_text("echo 'E: Unable to locate package more'; exit 100\n")
        yield replace(self.definition(), packages=("more",))
        script.write_text(before)


class ImageStand(BootstrapStand):
    """Starts from what the bootstrap builder made."""

    builder = load_builder("image")

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        (place / "start").mkdir()
        options = BuildOptions(work_directory=place / "start-work", cache_directory=place / "start-caches")
        self.start = load_builder("bootstrap").build(DEFINITION, place / "start", options, SILENT).images[0]
        file = place / "coppice.toml"
        file.write_text(f'state_directory = "{place}/state"\n')
        settings = load_settings(config=file, environ={}, options={}, system_file=file)
        self.starts = StartImages(settings=settings)

    def definition(self) -> Definition:
        where = Start(url=f"file://{self.start.path}", checksum=str(self.start.image.checksum))
        return replace(DEFINITION, name="own", start=where)

    def options(self) -> BuildOptions:
        return BuildOptions(starts=self.starts)


class PrebuiltStand(ImageStand):
    builder = load_builder("prebuilt")

    @contextmanager
    def failing(self) -> Iterator[Definition]:
        yield replace(self.definition(), disk_size_bytes=2 * DISK_BYTES)


STANDS = {"bootstrap": BootstrapStand, "image": ImageStand, "prebuilt": PrebuiltStand, "memory": MemoryStand}


@pytest.fixture(scope="module", params=list(STANDS))
def member(request, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    # The trees of the stand-in are small, and so are their disks.
    patch.setattr(supported, "_LEAST_ROOT_BYTES", 0)
    place = tmp_path_factory.mktemp(request.param)
    patch.setenv("PATH", f"{place}/stand-in:{os.environ['PATH']}")
    yield STANDS[request.param](place)
    patch.undo()


class TestBuilders(BuilderContract):
    @pytest.fixture
    def stand(self, member):
        return member


def test_every_builder_goes_by_the_name_that_it_is_loaded_by(monkeypatch):
    monkeypatch.setattr(builders, "_installed", lambda: [MemoryPoint()])
    for name in (*BUILT_IN, "memory"):
        assert load_builder(name).name == name


def test_every_builder_refuses_a_format_that_it_does_not_write(tmp_path):
    for name in BUILT_IN:
        with pytest.raises(BuildError):
            load_builder(name).build(replace(DEFINITION, formats=(DiskFormat.VHDX,)), tmp_path, BuildOptions(), SILENT)
    assert list(tmp_path.iterdir()) == []


def test_builders_are_imported_only_when_they_are_used():
    modules = sorted(value.partition(":")[0] for value in BUILT_IN.values())
    code = f"import sys, coppice.factory.builders; sys.exit(any(each in sys.modules for each in {modules!r}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
