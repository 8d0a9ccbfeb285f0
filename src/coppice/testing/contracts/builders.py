# SPDX-License-Identifier: Apache-2.0
"""What every builder must do: `BuilderContract`.

A member's tests make a class of it, and give it a stand::

    class TestMyBuilder(BuilderContract):
        @pytest.fixture
        def stand(self, my_stand):
            return my_stand

where ``my_stand`` may live as long as its module: what was built once is looked at by several tests.

A stand's builder may run stand-ins of its tools: what is asked here is how it behaves, not what it installs.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.errors import BuildError, ToolMissingError
from coppice.factory.build import build_key
from coppice.factory.files import sha512_of
from coppice.factory.model import Builder, BuildOptions
from coppice.model.identifiers import is_name
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from coppice.definition.model import Definition
    from coppice.factory.model import BuilderOutput

_DIGEST = re.compile(r"sha(?:256|384|512):[0-9a-f]{64,128}")
_QCOW2 = b"QFI\xfb"
_MARKS = ("'", '"', ";", "$(touch PLACE/obeyed)", "`touch PLACE/obeyed`", "%s", "{{ env `HOME` }}", "${x}", "|")


class BuilderStand(ABC):
    """A builder under test, with all that it needs to build something small.

    Args:
        place: A directory of the stand's own.

    Attributes:
        builder: The one under test.
        place: The directory.
        kept: What the first test that asked for a build had built.
        gives_same_bytes: Whether it promises that two builds of the same inputs are the same, byte for byte.
        needs_tools: Whether it runs programs that may be missing.
    """

    builder: Builder
    gives_same_bytes = True
    needs_tools = True

    def __init__(self, place: Path) -> None:
        self.place = place
        self.kept: Built | None = None

    @abstractmethod
    def definition(self) -> Definition:
        """Return something that can be built quickly, in the format raw or qcow2."""

    @abstractmethod
    def options(self) -> BuildOptions:
        """Return what it is built with, but for the directories."""

    @abstractmethod
    def failing(self) -> AbstractContextManager[Definition]:
        """Return a context in which building the definition that it yields fails midway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A build of a stand.

    Attributes:
        into: Where.
        output: What the builder handed back.
        work: Where it worked.
    """

    into: Path
    output: BuilderOutput
    work: Path


class _Stopping:
    """A monitor whose reader wants no more: as the terminal's does when its user has had enough."""

    def __init__(self, after_steps: int) -> None:
        self._left = after_steps

    @contextmanager
    def task(self, label: str, *, total: int | None = None, unit: Unit = Unit.STEPS) -> Iterator[_Stopping]:
        del label, total, unit
        yield self

    def message(self, text: str) -> None:
        del text

    def advance(self, amount: int) -> None:
        del amount
        self._count()

    def reach(self, amount: int, total: int | None = None) -> None:
        del amount, total
        self._count()

    def note(self, text: str) -> None:
        del text

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt


class BuilderContract:
    """The suite."""

    @pytest.fixture
    def built(self, stand: BuilderStand) -> Built:
        """Return a build of the stand's definition, whose texts are hostile."""
        if stand.kept is None:
            stand.kept = make(stand, hostile(stand), "built")
        return stand.kept

    def test_it_goes_by_a_name_and_has_a_version(self, stand: BuilderStand) -> None:
        assert is_name(stand.builder.name)
        assert isinstance(stand.builder.version, str)
        assert stand.builder.version

    def test_it_takes_what_the_protocol_says(self, stand: BuilderStand) -> None:
        wanted = list(inspect.signature(Builder.build).parameters)[1:]
        assert list(inspect.signature(stand.builder.build).parameters) == wanted

    def test_it_makes_what_it_says(self, stand: BuilderStand, built: Built) -> None:
        images = built.output.images
        assert tuple(each.image.format for each in images) == stand.definition().formats
        for each in images:
            assert each.path.parent == built.into
            assert each.path.stat().st_size == each.image.size_bytes
            assert sha512_of(each.path).matches(each.image.checksum)
            with each.path.open("rb") as stream:
                assert (stream.read(len(_QCOW2)) == _QCOW2) is (each.image.format is DiskFormat.QCOW2)
        names = [(package.name, package.architecture) for package in built.output.packages]
        assert names == sorted(names)

    def test_texts_of_a_definition_are_nowhere_obeyed(self, stand: BuilderStand, built: Built) -> None:
        assert built.output.images
        assert not (stand.place / "obeyed").exists()

    def test_what_went_in_is_known_by_its_digest_and_names_nothing_of_this_machine(
        self, stand: BuilderStand, built: Built
    ) -> None:
        for each in built.output.inputs:
            assert each.name
            assert _DIGEST.fullmatch(each.digest), each
            assert not each.uri.startswith(("/", "file:"))
            assert str(stand.place) not in f"{each.name} {each.uri}"
        for tool, version in built.output.tools:
            assert tool
            assert version

    def test_its_log_and_tree_are_where_it_builds(self, built: Built) -> None:
        for beside in (built.output.log, built.output.tree):
            assert beside is None or (beside.parent == built.into and beside.exists())

    def test_it_leaves_nothing_where_it_worked(self, built: Built) -> None:
        assert left_over(built.work) == []

    def test_the_same_inputs_give_the_same_bytes_where_it_promises_so(self, stand: BuilderStand, built: Built) -> None:
        if not stand.gives_same_bytes:
            assert built.output.images
            return
        again = make(stand, hostile(stand), "again")
        found = [each.image.checksum for each in again.output.images]
        assert found == [each.image.checksum for each in built.output.images]

    def test_its_key_is_the_same_for_the_same_and_another_for_all_else(self, stand: BuilderStand) -> None:
        definition, options = stand.definition(), stand.options()
        key = build_key(definition, stand.builder, options)
        assert build_key(stand.definition(), stand.builder, options) == key
        others = (
            build_key(replace(definition, title="another"), stand.builder, options),
            build_key(definition, _Later(stand.builder), options),
            build_key(definition, stand.builder, replace(options, mirror="http://elsewhere.example/debian")),
        )
        assert key not in others

    def test_a_format_that_it_does_not_write_is_refused_and_leaves_nothing(self, stand: BuilderStand) -> None:
        into, options = prepared(stand, "format")
        with pytest.raises(BuildError) as caught:
            stand.builder.build(replace(stand.definition(), formats=(DiskFormat.VHDX,)), into, options, SILENT)
        assert "vhdx" in caught.value.message
        assert list(into.iterdir()) == []

    def test_a_failure_is_told_and_leaves_its_log_alone(self, stand: BuilderStand) -> None:
        into, options = prepared(stand, "failing")
        with stand.failing() as definition, pytest.raises(BuildError) as caught:
            stand.builder.build(definition, into, options, SILENT)
        assert caught.value.message
        assert not [path for path in into.iterdir() if path.suffix.lstrip(".") in set(DiskFormat)]
        assert left_over(_work(options)) == []

    @pytest.mark.threat("T82")
    def test_one_that_is_stopped_midway_leaves_nothing_where_it_worked(self, stand: BuilderStand) -> None:
        into, options = prepared(stand, "stopped")
        with pytest.raises(KeyboardInterrupt):
            stand.builder.build(stand.definition(), into, options, _Stopping(after_steps=0))
        assert left_over(_work(options)) == []

    def test_a_missing_tool_is_named_and_nothing_is_left(
        self, stand: BuilderStand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        into, options = prepared(stand, "tool")

        def missing(name: str) -> str:
            raise ToolMissingError(f"the program {name!r} is not installed")

        # Some programs are looked for beside PATH: nobody's may be found here.
        module = sys.modules[type(stand.builder).__module__]
        monkeypatch.setattr(module, "find_tool", missing, raising=stand.needs_tools)
        if not stand.needs_tools:
            assert stand.builder.build(stand.definition(), into, options, SILENT).images
            return
        with pytest.raises(ToolMissingError, match="is not installed"):
            stand.builder.build(stand.definition(), into, options, SILENT)
        assert list(into.iterdir()) == []


class _Later:
    """A builder as its next version would be."""

    def __init__(self, builder: Builder) -> None:
        self.name = builder.name
        self.version = f"{builder.version}.later"
        self.build = builder.build


def hostile(stand: BuilderStand) -> Definition:
    """Return the stand's definition with texts that a shell, a template or a boot menu would obey."""
    marks = " ".join(_MARKS).replace("PLACE", str(stand.place))
    return replace(stand.definition(), title=f"T {marks}"[:200], description=f"D {marks}\n-- \n", groups=(marks,))


def make(stand: BuilderStand, definition: Definition, name: str) -> Built:
    """Build ``definition`` in a directory of that name."""
    into, options = prepared(stand, name)
    output = stand.builder.build(definition, into, options, SILENT)
    return Built(into=into, output=output, work=_work(options))


def prepared(stand: BuilderStand, name: str) -> tuple[Path, BuildOptions]:
    """Return an empty directory to build into, and options with directories of their own."""
    into = stand.place / name / "into"
    into.mkdir(parents=True)
    work = stand.place / name / "work"
    return into, replace(stand.options(), work_directory=work, cache_directory=stand.place / "caches")


def left_over(work: Path) -> list[str]:
    """Return what a build left: files where it worked, processes that it started, mounts."""
    mark = str(work)
    found = [str(path) for path in work.iterdir()] if work.exists() else []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.parent.name == str(os.getpid()):
            continue
        try:
            words = path.read_bytes().decode("utf-8", errors="replace").replace("\0", " ")
        except OSError:
            continue
        found += [words] if mark in words else []
    return found + [line for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines() if mark in line]


def _work(options: BuildOptions) -> Path:
    assert options.work_directory is not None
    return options.work_directory
