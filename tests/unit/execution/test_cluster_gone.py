# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.errors import ClusterError, StorageError
from coppice.execution.cluster import Cluster
from coppice.execution.worker import TOKEN
from coppice.monitor import SILENT

pytestmark = pytest.mark.unit

WORKERS = {"workers": {"tcp://127.0.0.1:1": {"resources": {"x86_64": 1}}}}


class Client:
    """A client whose scheduler goes away at one question."""

    def __init__(self, fails) -> None:
        self._fails = fails

    def _ask(self, what, answer):
        if what == self._fails:
            raise OSError("in-stream was closed")
        return answer

    def scheduler_info(self, **_words):
        return self._ask("scheduler_info", WORKERS)

    def run(self, *_arguments, **_words):
        return self._ask("run", {})

    def subscribe_topic(self, *_arguments):
        self._ask("subscribe_topic", None)

    def submit(self, *_arguments, **_words):
        return self._ask("submit", None)


def do(cluster):
    cluster.do(len, "", name="it", needs=frozenset({"x86_64"}), monitor=SILENT, stopped=lambda: False)


@pytest.mark.parametrize("fails", ["scheduler_info", "run", "subscribe_topic", "submit"])
def test_a_scheduler_that_goes_away_is_an_error_of_the_cluster_at_whatever_question(tmp_path, fails):
    (tmp_path / TOKEN).write_text("t")
    cluster = Cluster(Client(fails), run=tmp_path, lost_seconds=1)
    with pytest.raises(ClusterError, match="does not answer any more"):
        (do if fails == "submit" else Cluster.meet)(cluster)


def test_a_directory_of_the_run_that_went_away_is_an_error_of_the_disk(tmp_path):
    with pytest.raises(StorageError):
        do(Cluster(Client(None), run=tmp_path / "gone", lost_seconds=1))
