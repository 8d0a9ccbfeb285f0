# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace

import pytest

from coppice.errors import BuildError, ToolFailedError
from coppice.factory.bootstrap import tree, twins
from coppice.factory.bootstrap.inside import Order
from coppice.factory.bootstrap.suites import find_suite
from coppice.factory.bootstrap.tree import TreeMaker
from coppice.factory.bootstrap.twins import (
    PROGRAMS,
    extraction,
    find_home,
    gather,
    hiding,
    make_twins,
    showing,
    started_from_tree,
)

pytestmark = pytest.mark.unit

HOME = find_home("x86_64")
PROGRAM = b"\x7fELF" + HOME.linker.encode() + b"\0more\0"
ORDER = {"home": HOME, "sources": b"deb mirror\n", "seconds": 60.0}


@pytest.fixture
def extracted(tmp_path):
    """What the packages are extracted to."""
    place = tmp_path / "twins.extracted"
    for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/perl-base", "bin", "usr/bin"):
        (place / folder).mkdir(parents=True)
    (place / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2").write_bytes(b"linker")
    (place / "usr/lib/x86_64-linux-gnu/perl-base/POSIX.pm").write_bytes(b"module")
    (place / "bin/dash").write_bytes(PROGRAM)
    (place / "usr/bin/perl").write_bytes(PROGRAM)
    (place / "usr/bin/uname").write_bytes(PROGRAM)
    (place / "bin/sed").symlink_to("dash")
    return place


@pytest.fixture
def made(monkeypatch):
    """The orders of a `TreeMaker` that makes nothing."""
    orders = []
    monkeypatch.setattr(tree, "emulation_rule", lambda _: "rule")
    monkeypatch.setattr(tree.platform, "machine", lambda: "x86_64")

    def carry_out(maker, order):
        orders.append(order)
        maker.work.joinpath("indices.json").write_text("{}")

    monkeypatch.setattr(TreeMaker, "_carry_out", carry_out)
    return orders


def maker(work, architecture):
    return TreeMaker(
        suite=find_suite("bookworm", architecture),
        sources=("deb mirror",),
        work=work,
        timeout_seconds=60,
        on_output=lambda _: None,
    )


def test_what_says_which_machine_it_is_stays_emulated_and_so_does_what_initial_file_systems_are_made_of():
    assert not {"arch", "uname", "dpkg", "kmod", "modprobe", "udevadm", "busybox", "ldd"} & set(PROGRAMS)
    assert {"dash", "perl", "dpkg-deb", "cp", "sed", "zstd"} <= set(PROGRAMS)
    assert len(PROGRAMS) == len(set(PROGRAMS))


def test_machines_whose_programs_are_not_known_have_no_twins():
    assert find_home("aarch64") is None


def test_a_program_is_started_by_the_linker_that_the_tree_shows_and_is_as_long_as_before():
    after = started_from_tree(PROGRAM, HOME)
    assert after == b"\x7fELF/lib/x86_64-linux-gnu/ld.so\0more\0"
    assert len(HOME.place) <= len(HOME.linker)
    assert started_from_tree(b"#!/bin/sh\n", HOME) == b"#!/bin/sh\n"
    shorter = replace(HOME, folder="x86")
    assert len(started_from_tree(PROGRAM, shorter)) == len(PROGRAM)


def test_programs_and_libraries_are_gathered_from_where_the_release_has_them(tmp_path, extracted):
    gather(extracted, HOME, tmp_path / "twins")
    found = {str(path.relative_to(tmp_path / "twins")) for path in (tmp_path / "twins").rglob("*") if path.is_file()}
    assert found == {
        "bin/dash",
        "bin/perl",
        "lib/ld-linux-x86-64.so.2",
        "lib/ld.so",
        "lib/perl-base/POSIX.pm",
    }
    assert (tmp_path / "twins/bin/dash").stat().st_mode & 0o777 == 0o755
    assert b"/lib/x86_64-linux-gnu/ld.so\0" in (tmp_path / "twins/bin/dash").read_bytes()


def test_they_are_extracted_with_the_sources_and_keys_of_the_tree(tmp_path, extracted, monkeypatch):
    runs = []
    monkeypatch.setattr(twins, "run", lambda argv, **options: runs.append((argv, options)))
    command = extraction(HOME, "bookworm", "--components=main", "--keyring=/keys")
    make_twins(command, space=tmp_path, say=lambda _: None, **ORDER)
    ((argv, options),) = runs
    assert {"--architectures=amd64", "--variant=extract", "--components=main", "--keyring=/keys"} <= set(argv)
    assert argv[-3:] == ["bookworm", extracted, "-"]
    assert (options["input_bytes"], options["timeout_seconds"]) == (b"deb mirror\n", 60.0)
    assert (tmp_path / "twins/bin/dash").is_file()
    assert not extracted.exists()


@pytest.mark.parametrize("is_extracted", [False, True])
def test_where_they_cannot_be_had_all_is_emulated_and_that_is_said(tmp_path, monkeypatch, is_extracted):
    def fails(argv, **options):
        if not is_extracted:
            raise ToolFailedError("no packages for amd64")
        (tmp_path / "twins.extracted").mkdir()

    said = []
    monkeypatch.setattr(twins, "run", fails)
    make_twins(("mmdebstrap",), space=tmp_path, say=said.append, **ORDER)
    assert "all programs are emulated" in said[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_base_for_other_processors_shows_them_once_its_own_are_installed_and_hides_them_in_the_end(tmp_path, made):
    maker(tmp_path, "aarch64").make_base()
    (order,) = made
    assert order.twins[:1] == ("mmdebstrap",)
    hooks = [word.partition("=")[2] for word in order.command if "-hook=" in word]
    at = [number for number, hook in enumerate(hooks) if hook == showing(HOME)]
    made_at = next(number for number, hook in enumerate(hooks) if "update-initramfs" in hook)
    assert [word.partition("=")[0] for word in order.command if word.endswith(showing(HOME))] == [
        "--essential-hook",
        "--customize-hook",
    ]
    assert at[-1] < made_at < hooks.index(hiding(HOME))
    assert json.loads(order.document())["twins"] == list(order.twins)


def test_a_child_and_what_is_for_this_machine_have_none(tmp_path, made):
    maker(tmp_path, "x86_64").make_base()
    maker(tmp_path, "aarch64").make_child((tmp_path / "layer",), ("jq",), None)
    assert [order.twins for order in made] == [(), ()]
    assert not [word for order in made for word in order.command if "twins" in word]
    assert Order.__dataclass_fields__["twins"].default == ()


@pytest.mark.parametrize(
    ("last", "advice"),
    [
        ("E: /usr/bin/mmdebstrap did not end within 60 s and was stopped", "build_timeout_seconds"),
        ("E: dpkg died from signal: KILL", "--at-once"),
        ("E: Unable to locate package jq", "lines above"),
    ],
)
def test_who_ran_out_of_time_is_told_to_give_more(tmp_path, made, monkeypatch, last, advice):
    def fails(maker, order):
        raise ToolFailedError("failed", details=f"I: setting up\n{last}\n")

    monkeypatch.setattr(TreeMaker, "_carry_out", fails)
    with pytest.raises(BuildError, match=last.removeprefix("E: ")) as caught:
        maker(tmp_path, "aarch64").make_base()
    assert advice in (caught.value.resolution or "")
