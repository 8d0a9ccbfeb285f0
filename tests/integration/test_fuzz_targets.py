# SPDX-License-Identifier: Apache-2.0
"""The fuzz targets find nothing but declared errors: a short run for every day, a long one for the soak."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = Path(__file__).resolve().parent.parent / "fuzz"
LONG_SECONDS, MOST_SECONDS = 300, 240
# Where atheris has no build, its declaration in pyproject.toml leaves it out.
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.version_info >= (3, 14), reason="atheris is not built for this machine"
)


def fuzz(target: str, seconds: int, directory: Path, *, runs: int = -1) -> int:
    """Fuzz for so long, or as many times as that, whichever ends first; return how many times it was."""
    corpus = directory / "corpus"
    corpus.mkdir()
    argv = [sys.executable, str(TARGETS / target), f"-max_total_time={seconds}", f"-runs={runs}"]
    argv += [f"-artifact_prefix={directory}/", str(corpus)]
    ended = subprocess.run(argv, cwd=directory, capture_output=True, timeout=seconds + 240, check=False)
    said = ended.stderr.decode("utf-8", "replace")
    assert ended.returncode == 0, said[-4000:]
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
    assert executed is not None, said[-4000:]
    return int(executed.group(1))


@pytest.mark.integration
@pytest.mark.threat("T77")
def test_the_reader_of_lists_withstands_a_short_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_list.py", MOST_SECONDS, tmp_path, runs=3000) > 1000


@pytest.mark.integration
@pytest.mark.threat("T12")
def test_the_reader_of_signed_messages_withstands_a_short_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_smime.py", MOST_SECONDS, tmp_path, runs=3000) > 1000


@pytest.mark.integration
@pytest.mark.threat("T57")
def test_the_readers_of_deltas_withstand_a_short_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_delta.py", MOST_SECONDS, tmp_path, runs=3000) > 1000


@pytest.mark.integration
@pytest.mark.threat("T62")
def test_the_detector_of_disks_withstands_a_short_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_detect.py", MOST_SECONDS, tmp_path, runs=800) > 300


@pytest.mark.soak
@pytest.mark.threat("T62")
def test_the_detector_of_disks_withstands_a_long_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_detect.py", LONG_SECONDS, tmp_path) > 5000


@pytest.mark.integration
@pytest.mark.threat("T67")
@pytest.mark.threat("T68")
def test_the_readers_of_archives_and_descriptors_withstand_a_short_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_ova.py", MOST_SECONDS, tmp_path, runs=800) > 300


@pytest.mark.soak
@pytest.mark.threat("T67")
@pytest.mark.threat("T68")
def test_the_readers_of_archives_and_descriptors_withstand_a_long_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_ova.py", LONG_SECONDS, tmp_path) > 3000


@pytest.mark.integration
def test_the_readers_of_guests_withstand_a_short_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_guest.py", MOST_SECONDS, tmp_path, runs=800) > 300


@pytest.mark.soak
def test_the_readers_of_guests_withstand_a_long_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_guest.py", LONG_SECONDS, tmp_path) > 3000


@pytest.mark.soak
@pytest.mark.threat("T57")
def test_the_readers_of_deltas_withstand_a_long_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_delta.py", LONG_SECONDS, tmp_path) > 10_000


@pytest.mark.soak
@pytest.mark.threat("T77")
def test_the_reader_of_lists_withstands_a_long_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_list.py", LONG_SECONDS, tmp_path) > 10_000


@pytest.mark.soak
@pytest.mark.threat("T12")
def test_the_reader_of_signed_messages_withstands_a_long_run(tmp_path: Path) -> None:
    assert fuzz("fuzz_smime.py", LONG_SECONDS, tmp_path) > 10_000
