# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of builds says of what it measured, and how it asks kiwi."""

from __future__ import annotations

import importlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KIWI = "whole build, CPU as a part of kiwi's"


@dataclass
class Bench:
    """The benchmark, with nothing that takes time in it."""

    module: ModuleType
    kiwi: ModuleType
    directory: Path
    asked: list[dict[str, object]] = field(default_factory=list)

    def run(self, *options: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["build.py", str(self.directory), *options])
            return int(self.module.main())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module, kiwi = (importlib.import_module(name) for name in ("build", "build_by_kiwi"))
    (tmp_path / "caches" / "packages" / "debian").mkdir(parents=True)
    disk = module.DEFINITION.disk_size_bytes
    image = SimpleNamespace(size_bytes=170_000_000, virtual_size_bytes=disk)
    built = SimpleNamespace(directory=tmp_path, images=[SimpleNamespace(image=image)])
    # Whole, unchanged, and three children, of which the one in the middle counts.
    took = iter([(60.0, 70.0), (0.1, 0.2), (6.0, 9.0), (20.0, 30.0), (1.0, 2.0)])
    made = Bench(module, kiwi, tmp_path)

    @contextmanager
    def peak() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(bytes=1024**3)

    def by_kiwi(place: Path, **asked: object) -> object:
        made.asked.append({"place": place, **asked})
        return kiwi.KiwiBuild(cpu_seconds=240.0, seconds=300.0, image_bytes=1)

    monkeypatch.setattr(module, "bare", lambda *_: 60.0)
    monkeypatch.setattr(module, "timed", lambda *_: (built, *next(took)))
    monkeypatch.setattr(module, "changed_by_update", lambda *_: 0.01)
    monkeypatch.setattr(module, "layer_paths", lambda _: [tmp_path / "layer"])
    monkeypatch.setattr(module, "sources", lambda *_: ("deb http://mirror.example/debian bookworm main",))
    monkeypatch.setattr(module, "peak_memory", peak)
    monkeypatch.setattr(module, "build_by_kiwi", by_kiwi)
    return made


def test_the_table_has_a_line_for_each_goal(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:75].rstrip() for line in lines] == list(bench.module.GOALS)
    assert all(line.endswith(" ok") for line in lines)
    assert "0.250" in lines[1]


def test_kiwi_is_asked_for_the_same_packages_from_the_same_sources(bench: Bench) -> None:
    bench.run()
    (asked,) = bench.asked
    assert asked["packages"] == bench.module.package_names()
    assert asked["sources"] == ("deb http://mirror.example/debian bookworm main",)
    assert asked["size_bytes"] == bench.module.DEFINITION.disk_size_bytes


def test_without_kiwi_says_so(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("--without-kiwi") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(KIWI))
    assert line.endswith("left out (--without-kiwi)")
    assert not bench.asked


def test_a_kiwi_that_cannot_be_had_is_a_missed_goal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise bench.kiwi.KiwiError("kiwi needs what is not here: apt-get install rsync")

    monkeypatch.setattr(bench.module, "build_by_kiwi", refuse)
    assert bench.run("--json") == 1
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[1] == {
        "name": KIWI,
        "figure": None,
        "goal": 0.5,
        "holds": False,
        "why": "kiwi needs what is not here: apt-get install rsync",
    }
    assert all(figure["holds"] for figure in said if figure["name"] != KIWI)


def test_a_missed_goal_is_told_by_the_exit_status(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.module, "changed_by_update", lambda *_: 0.031)
    assert bench.run() == 1


def test_the_description_for_kiwi_has_the_packages_and_the_signed_sources(bench: Bench, tmp_path: Path) -> None:
    place = tmp_path / "description"
    sources = (
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/more bookworm-security main",
    )
    bench.kiwi._describe(place, ("initramfs-tools", "less"), sources, 4 * 1024**3)
    root = ET.parse(place / "appliance.kiwi").getroot()  # noqa: S314 - written by the line above
    assert [each.get("name") for each in root.findall("packages[@type='image']/package")] == ["dracut", "less"]
    found = {
        (each.get("distribution"), each.get("components"), source.get("path"))
        for each in root.findall("repository")
        for source in each.findall("source")
        if source.find("signing") is not None
    }
    assert found == {
        ("bookworm", "main", "http://mirror.example/debian"),
        ("bookworm-security", "main", "http://mirror.example/more"),
    }
    assert root.findtext("preferences/type/size") == "4096"
    assert root.findtext("preferences/rpm-check-signatures") == "true"


def test_the_losetup_for_kiwi_stands_before_the_real_one_and_calls_it(bench: Bench, tmp_path: Path) -> None:
    place = bench.kiwi._tools(tmp_path / "tools")
    for name in ("losetup", "partx"):
        text = (place / name).read_text("utf-8")
        assert "{" not in text.replace("${", "").replace("{ shift", "")
        assert (place / name).stat().st_mode & 0o111
