# SPDX-License-Identifier: Apache-2.0
"""What a loss of power could do to a run, found in the calls that it makes: nothing gets its name before its bytes.

First as a rule that the calls keep to; then replayed: the directories are made what a weak file system may leave of
them, and the next run must find nothing broken and end where an undisturbed one does.
"""

from __future__ import annotations

import hashlib
import random
import re

import pytest

from coppice.testing.oracle import Oracle
from coppice.testing.powercut import OPTIONS, Loss, PowerCut

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.threat("T83")]

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)")
_FD = re.compile(r"\d+<([^>]*)>")
_NAMES = re.compile(r'"([^"]*)"')


def lost_by_power(lines, roots):
    """Return what a loss of power could do, by a trace: names that come to files whose bytes are not on the disk.

    A file system may write what was not flushed in any order, or never. So the bytes of a file must have been flushed
    before its name is changed, and the directory before the database says that it is there.
    """
    dirty, unsaved, lost = set(), set(), []
    for line in lines:
        match = _CALL.match(line)
        if match is None or ") = -1 " in line:
            continue
        call, said = match[2], match[3]
        named = _FD.match(said)
        path = named[1] if named else None
        if call in {"write", "writev", "pwrite64", "ftruncate", "copy_file_range", "sendfile", "fallocate"}:
            if path and any(path.startswith(root) for root in roots) and ".sqlite" not in path:
                dirty.add(path)
        elif call in {"fsync", "fdatasync"}:
            if path in unsaved:
                unsaved.discard(path)
            elif path:
                dirty.discard(path)
                if path.endswith((".sqlite", ".sqlite-wal")):
                    lost += [f"the database is written while names in {each} are not" for each in unsaved]
        elif call.startswith("rename") or call == "link":
            names = _NAMES.findall(said)
            if len(names) == 2 and any(names[1].startswith(root) for root in roots):
                if names[0] in dirty:
                    lost.append(f"{names[1]} gets its name before its bytes are flushed")
                unsaved.add(names[1].rpartition("/")[0])
    return lost


@pytest.mark.parametrize("command", [("sync",), ("cache", "fetch", "--refresh")])
def test_no_file_comes_to_its_name_before_its_bytes_and_no_row_before_its_file(site, kit, forge, command):
    site.renew(site.first, kit.tiny_qcow2(site.root, seed=2), "2")
    site.next_version()
    site.publish()
    lines = forge.trace("--config", str(site.settings), "--json", *command, environment=site.environment())
    roots = (str(site.state), str(site.cloud))
    assert sum("rename(" in line and str(site.root) in line for line in lines) >= 3
    assert lost_by_power(lines, roots) == []


@pytest.mark.parametrize("points", [pytest.param(9, id="9"), pytest.param(120, id="120", marks=pytest.mark.soak)])
@pytest.mark.parametrize("command", [("sync",), ("cache", "fetch", "--refresh")])
def test_a_machine_that_comes_up_after_a_loss_of_power_has_nothing_broken_and_goes_on(
    site, kit, forge, command, points
):
    def run(*arguments, strace=()):
        argv = ("--config", str(site.settings), "--json", *arguments)
        return forge.run(*argv, environment=site.environment(), strace=strace)

    site.renew(site.first, kit.tiny_qcow2(site.root, seed=2), "2")
    site.next_version()
    site.publish()
    oracle = Oracle(state=site.state, cloud=site.cloud)
    published = frozenset(hashlib.sha512(data).hexdigest() for data in site.publisher.files.values())
    oracle.disks = published | {each.disk for each in oracle.registered()}
    oracle.plant()
    power = PowerCut([site.state, site.cloud])
    trace = site.root / "trace"
    assert run(*command, strace=[*OPTIONS, "-o", str(trace)]).code == 0
    oracle.check_after_fault()
    power.follow(trace.read_text(encoding="ascii").splitlines())
    expected = oracle.essence()
    # Replayed to its end with nothing lost, it is what the run left.
    power.restore(power.calls, Loss.NOTHING)
    oracle.check_after_fault()
    assert oracle.essence() == expected
    chooser = random.Random(83)  # noqa: S311 - where power is lost
    for number, cut in enumerate(sorted(chooser.sample(range(power.calls), points))):
        loss = (Loss.DATA, Loss.ALL, Loss.SOME)[number % 3]
        power.restore(cut, loss, seed=number)
        oracle.check_after_fault()
        ended = run(*command)
        assert ended.code == 0, (cut, loss, ended)
        oracle.check_after_rerun(expected)


def test_the_check_finds_what_was_not_flushed():
    good = [
        '1 write(3</s/.a.partial>, ""..., 5) = 5',
        "1 fsync(3</s/.a.partial>) = 0",
        '1 rename("/s/.a.partial", "/s/a") = 0',
        "1 fsync(4</s>) = 0",
        "1 fdatasync(5</s/coppice.sqlite-wal>) = 0",
    ]
    assert lost_by_power(good, ("/s",)) == []
    assert "before its bytes" in lost_by_power([good[0], *good[2:]], ("/s",))[0]
    assert "the database is written" in lost_by_power([*good[:3], good[4]], ("/s",))[0]
    failed = [good[0], good[1].replace("= 0", "= -1 EIO (Input/output error)"), *good[2:]]
    assert lost_by_power(failed, ("/s",)) != []
