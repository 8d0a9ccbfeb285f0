# SPDX-License-Identifier: Apache-2.0
"""What every builder keeps to. Building for real is in tests/integration and tests/e2e: it takes minutes."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.definition.read import read_definition
from coppice.errors import BuildError, ToolMissingError
from coppice.factory import builders
from coppice.factory.builders import BUILT_IN, load_builder
from coppice.factory.model import Builder, BuilderOutput, BuildOptions, BuiltImage
from coppice.model.checksum import Checksum
from coppice.model.identifiers import is_name
from coppice.model.image import DiskFormat, Image
from coppice.monitor import SILENT

pytestmark = pytest.mark.contract

DEFINITION = read_definition(Path(__file__).parents[2] / "definitions" / "debian-12")


class MemoryBuilder:
    """Makes a raw disk of zeros; needs no tools."""

    name = "memory"
    version = "1"

    def build(self, definition, into, options, monitor):
        if definition.formats != (DiskFormat.RAW,):
            raise BuildError("memory writes raw only")
        path = into / "disk.raw"
        path.write_bytes(bytes(512))
        facts = Image(format=DiskFormat.RAW, size_bytes=512, virtual_size_bytes=512, checksum=Checksum.of(bytes(512)))
        return BuilderOutput(images=(BuiltImage(path=path, image=facts),), packages=(), tools=())


class MemoryPoint:
    name = "memory"
    value = "tests:MemoryBuilder"

    def load(self):
        return MemoryBuilder


@pytest.fixture(params=[*BUILT_IN, "memory"])
def member(request, monkeypatch):
    monkeypatch.setattr(builders, "_installed", lambda: [MemoryPoint()])
    return request.param, load_builder(request.param)


def test_a_builder_goes_by_the_name_that_it_is_loaded_by(member):
    name, builder = member
    assert builder.name == name
    assert is_name(name)


def test_a_builder_has_a_version_that_says_when_its_output_changes(member):
    _, builder = member
    assert isinstance(builder.version, str)
    assert builder.version


def test_a_builder_takes_what_the_protocol_says(member):
    _, builder = member
    wanted = list(inspect.signature(Builder.build).parameters)[1:]
    assert list(inspect.signature(builder.build).parameters) == wanted


def test_a_format_that_a_builder_does_not_write_is_a_build_error_and_leaves_nothing(member, tmp_path):
    _, builder = member
    with pytest.raises(BuildError):
        builder.build(replace(DEFINITION, formats=(DiskFormat.VHDX,)), tmp_path, BuildOptions(), SILENT)
    assert list(tmp_path.iterdir()) == []


def test_a_builder_says_which_tool_is_missing(tmp_path, monkeypatch):
    builder = load_builder("bootstrap")

    def missing(name):
        raise ToolMissingError(f"the program {name!r} is not installed")

    monkeypatch.setattr("coppice.factory.bootstrap.builder.find_tool", missing)
    with pytest.raises(ToolMissingError):
        builder.build(DEFINITION, tmp_path, BuildOptions(), SILENT)
    assert list(tmp_path.iterdir()) == []


def test_the_memory_builder_makes_what_it_says(tmp_path):
    output = MemoryBuilder().build(replace(DEFINITION, formats=(DiskFormat.RAW,)), tmp_path, BuildOptions(), SILENT)
    built = output.images[0]
    assert built.path.parent == tmp_path
    assert built.path.stat().st_size == built.image.size_bytes
    assert Checksum.of(built.path.read_bytes()).matches(built.image.checksum)


def test_a_builder_is_imported_only_when_it_is_used():
    code = "import sys, coppice.factory.builders; sys.exit('coppice.factory.bootstrap.builder' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
