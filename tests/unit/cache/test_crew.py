# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from coppice.cache.crew import Crew, _Job
from coppice.cache.origin import open_origin
from coppice.cache.partial import PartialFile
from coppice.monitor import SILENT_TASK
from coppice.testing.client import loopback_client

pytestmark = pytest.mark.unit


class SlowFile(PartialFile):
    def __init__(self, path) -> None:
        super().__init__(path)
        self.begun, self.may_end = threading.Event(), threading.Event()

    def write(self, start, piece):
        self.begun.set()
        self.may_end.wait(30)
        super().write(start, piece)


def test_when_a_crew_has_ended_nobody_writes_any_more_however_slow_the_disk_is(tmp_path, monkeypatch):
    monkeypatch.setattr("coppice.cache.crew._JOIN_SECONDS", 0)
    client = loopback_client()
    with SlowFile(tmp_path / "x") as partial, open_origin("http://127.0.0.1:1/x", client=client) as origin:
        crew = Crew(
            origin,
            partial,
            size_bytes=100,
            client=client,
            deadline=client.deadline(),
            task=SILENT_TASK,
            begin_anew=partial.restart,
            pace=None,
        )
        helper = threading.Thread(target=crew._put, args=(_Job(0, 100), b"x" * 10), daemon=True)
        crew._threads.append(helper)
        helper.start()
        assert partial.begun.wait(30)
        end = threading.Thread(target=crew._end, daemon=True)
        end.start()
        end.join(0.2)
        assert end.is_alive()
        partial.may_end.set()
        end.join(30)
        helper.join(30)
        assert (end.is_alive(), partial.total_bytes) == (False, 10)
