# SPDX-License-Identifier: Apache-2.0
"""The limit on memory that holds for a build, be it a container's or a service's."""

from __future__ import annotations

import pytest

from coppice.factory.bootstrap.room import room_in_memory

pytestmark = pytest.mark.unit

GIB = 1024**3


@pytest.fixture
def machine(tmp_path):
    memory, own = tmp_path / "meminfo", tmp_path / "cgroup"
    memory.write_text(f"MemAvailable: {64 * 1024**2} kB\n")

    def make(place, **limits):
        own.write_text(f"1:name=systemd:/other\n0::{place}\n")
        for name, limit in limits.items():
            folder = tmp_path / "groups" / name.replace("_", "/")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "memory.max").write_text(f"{limit}\n")
            (folder / "memory.current").write_text(f"{GIB}\n")
        return {"memory": memory, "group": tmp_path / "groups", "own_group": own}

    return make


def test_the_limit_of_a_service_counts_and_so_does_that_of_its_slice(machine):
    assert room_in_memory(**machine("/slice/unit", slice="max", slice_unit=9 * GIB)) == 4 * GIB
    assert room_in_memory(**machine("/slice/unit", slice=7 * GIB, slice_unit=9 * GIB)) == 3 * GIB
    assert room_in_memory(**machine("/slice/unit", slice=2 * GIB, slice_unit="max")) == 0


@pytest.mark.parametrize("place", ["/", "/../../elsewhere", "/gone", ""])
def test_where_no_limit_is_seen_there_is_none(machine, place):
    assert room_in_memory(**machine(place)) == 32 * GIB


def test_without_a_word_of_the_kernel_the_top_counts(machine, tmp_path):
    said = machine("/")
    said["own_group"].unlink()
    said["group"].mkdir()
    (tmp_path / "groups/memory.max").write_text(f"{7 * GIB}\n")
    (tmp_path / "groups/memory.current").write_text(f"{GIB}\n")
    assert room_in_memory(**said) == 3 * GIB
