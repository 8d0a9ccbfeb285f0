# SPDX-License-Identifier: Apache-2.0
"""What publishing makes is what subscribers put disks together from: by patches, and by blocks of shared packs."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from coppice.cache.assembly import Method, Seed, assemble
from coppice.model.checksum import Checksum
from coppice.testing.deltas import MemoryRemote
from coppice.testing.desk import Desk
from coppice.testing.versions import file_system

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    directory = tmp_path_factory.mktemp("disks")
    files = {f"file-{number}": os.urandom(60_000) for number in range(40)}
    made = []
    for version in range(3):
        files |= {f"file-{number}": os.urandom(60_000) for number in range(4 * version)}
        made.append(file_system(directory, str(version), files))
    return made


def test_every_version_is_had_from_every_earlier_one_both_ways(tmp_path, disks):
    desk = Desk(tmp_path / "desk")
    desk.add("alpha", "1", disks[0])
    desk.create()
    desk.selections.select("general", "alpha")
    directory = tmp_path / "cache"
    (directory / "partial").mkdir(parents=True)
    paths = []
    for number, content in enumerate(disks):
        paths.append(tmp_path / f"disk-{number}")
        paths[-1].write_bytes(content)
    for number in range(3):
        if number:
            desk.add("alpha", str(number + 1), disks[number])
        desk.publish(deltas=True)
        [listed] = desk.read().images
        delta = listed.delta
        named = [delta.index, *delta.packs, *(patch.file for patch in delta.patches)]
        files = {file.uri: (desk.root / "web/images" / file.uri.rpartition("/")[2]).read_bytes() for file in named}
        for before in range(number):
            seeds = [Seed(path=paths[before], checksum=Checksum.of(disks[before]))]
            # An index that is too large is not looked into.
            far = replace(delta.index, size_bytes=1 << 40)
            ways = ((replace(delta, index=far), Method.PATCH), (replace(delta, patches=()), Method.BLOCKS))
            for offered, method in ways:
                destination = directory / "partial" / "arrived"
                made = assemble(
                    replace(listed, delta=offered),
                    destination=destination,
                    seeds=seeds,
                    remote=MemoryRemote(files),
                    directory=directory,
                    limit_bytes=10**9,
                )
                assert made.method is method
                assert destination.read_bytes() == disks[number]
                assert made.fetched_bytes < listed.size_bytes / 4
    desk.close()
