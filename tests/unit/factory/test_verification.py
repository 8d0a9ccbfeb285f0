# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from coppice.definition.read import read_definition
from coppice.factory import verification
from coppice.factory.bootstrap.layers import DISK
from coppice.factory.bootstrap.listing import Kind, Node, write_listing
from coppice.factory.model import BuilderOutput, BuildOptions, BuildResult, BuiltImage, Provenance
from coppice.factory.verification import verify_build
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.monitor import SILENT

pytestmark = pytest.mark.unit

DEFINITION = read_definition(Path(__file__).parents[3] / "definitions" / "debian-12")


class FakeBuilder:
    """Makes of each of its contents an image, and a tree with these files."""

    def __init__(self, *contents: dict[str, bytes], has_tree: bool = True) -> None:
        self.contents = list(contents)
        self.has_tree = has_tree
        self.options: list[BuildOptions] = []

    def build(self, definition, into, options, monitor):
        del monitor
        self.options.append(options)
        files = self.contents.pop(0)
        path = into / f"{definition.name}.qcow2"
        path.write_bytes(b"".join(files.values()))
        image = Image(
            format=DiskFormat.QCOW2,
            size_bytes=path.stat().st_size,
            virtual_size_bytes=512,
            checksum=Checksum.of(path.read_bytes()),
        )
        tree = into / "tree"
        if self.has_tree:
            tree.mkdir()
            listing = {name: Node(kind=Kind.FILE, digest=content.hex()) for name, content in files.items()}
            write_listing(tree / DISK, listing)
        return BuilderOutput(
            images=(BuiltImage(path=path, image=image),),
            packages=(),
            tools=(),
            tree=tree if self.has_tree else None,
        )


def verified(tmp_path, monkeypatch, builder):
    monkeypatch.setattr(verification, "load_builder", lambda _name: builder)
    first = tmp_path / "first"
    first.mkdir()
    made = builder.build(DEFINITION, first, BuildOptions(), SILENT)
    result = BuildResult(
        definition=DEFINITION,
        key="0" * 64,
        directory=first,
        images=made.images,
        packages=(),
        provenance=Provenance(definition_digest="", builder="fake 1", tools=(), started_at=None, seconds=0),
        verdicts=(),
        reused=False,
        tree=made.tree,
    )
    options = BuildOptions(work_directory=tmp_path / "work", cache_directory=tmp_path / "caches")
    return verify_build(result, options=options, monitor=SILENT)


def test_a_second_build_with_the_same_bytes_is_identical_and_leaves_nothing(tmp_path, monkeypatch):
    builder = FakeBuilder({"/a": b"a"}, {"/a": b"a"})
    found = verified(tmp_path, monkeypatch, builder)
    assert found.is_identical
    assert (found.differing, found.count) == ((), 0)
    assert list(found.digests) == ["debian-12.qcow2"]
    assert list((tmp_path / "work").iterdir()) == []


def test_the_files_that_differ_are_named(tmp_path, monkeypatch):
    builder = FakeBuilder({"/same": b"s", "/a": b"1", "/old": b"o"}, {"/same": b"s", "/a": b"2", "/new": b"n"})
    found = verified(tmp_path, monkeypatch, builder)
    assert not found.is_identical
    assert found.differing == ("/a", "/new", "/old")
    assert found.is_compared


def test_of_many_files_that_differ_the_first_are_named_and_all_are_counted(tmp_path, monkeypatch):
    builder = FakeBuilder({f"/{number}": b"1" for number in range(500)}, {})
    found = verified(tmp_path, monkeypatch, builder)
    assert len(found.differing) == verification.MOST_DIFFERING
    assert found.count == 500


def test_a_builder_without_a_tree_is_compared_by_its_images_alone(tmp_path, monkeypatch):
    found = verified(tmp_path, monkeypatch, FakeBuilder({"/a": b"1"}, {"/a": b"2"}, has_tree=False))
    assert not found.is_identical
    assert not found.is_compared


def test_a_second_build_uses_no_tree_that_was_kept_but_packages_that_were(tmp_path, monkeypatch):
    class Looking(FakeBuilder):
        packages: Path | None = None

        def build(self, definition, into, options, monitor):
            if options.cache_directory is not None:
                self.packages = (options.cache_directory / "packages").resolve()
            return super().build(definition, into, options, monitor)

    builder = Looking({"/a": b"a"}, {"/a": b"a"})
    verified(tmp_path, monkeypatch, builder)
    assert builder.packages == tmp_path / "caches" / "packages"
    assert builder.options[1].cache_directory != tmp_path / "caches"
