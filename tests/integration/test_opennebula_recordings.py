# SPDX-License-Identifier: Apache-2.0
"""The simulator of OpenNebula is held to every request and answer that was recorded from a real one."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.testing.opennebula import Copying, OpenNebulaSimulator, State

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration

RECORDINGS = Path(__file__).parents[1] / "data" / "opennebula"
NAMES = sorted(path.name.removesuffix(".request.xml") for path in RECORDINGS.glob("*.request.xml"))
WAIT_SECONDS = 60

IMAGES = "/srv/images"
"""The safe directory, and the server's own, as the recordings call them."""
SERVER = "/var/lib/one-root"

VARYING = (
    (re.compile(r"(&lt;(?:REGTIME|MODTIME)&gt;)\d+"), r"\1TIME"),
    (re.compile(r"[0-9a-f]{32}"), "FILE"),
    (re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4} : "), "TIME : "),
    (re.compile(r"(&lt;(?:TOTAL|FREE|USED)_MB&gt;)\d+"), r"\1ROOM"),
)


def asked(simulator: OpenNebulaSimulator, request: bytes) -> str:
    call = urllib.request.Request(simulator.endpoint, data=request)  # noqa: S310 - it is on loopback
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(call, timeout=WAIT_SECONDS) as answer:
        return answer.read().decode()


def comparable(answer: str) -> str:
    for pattern, instead in VARYING:
        answer = pattern.sub(instead, answer)
    return answer


def reach(simulator: OpenNebulaSimulator, image: int, state: State) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while simulator.image(image).state is not state:
        assert time.monotonic() < until, simulator.image(image)
        time.sleep(0.01)


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, tuple[str, str]]:
    """What the simulator says to each recorded request, and what the real one said, made comparable."""
    folder = tmp_path_factory.mktemp("opennebula")
    safe = folder / "images"
    safe.mkdir()
    # 16 MiB to a guest, as the recorded one.
    header = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + (16 * 1024 * 1024).to_bytes(8, "big")
    (safe / "a.qcow2").write_bytes(header + bytes(1000))
    machines: list[int] = []
    with OpenNebulaSimulator(folder / "one", safe_directories=str(safe)) as simulator:
        simulator.faults.copying = Copying(held=True)

        def let_copy() -> None:
            simulator.faults.clear()
            reach(simulator, 0, State.READY)

        between: dict[str, Callable[[], object]] = {
            "07": let_copy,
            "13": lambda: reach(simulator, 1, State.ERROR),
            "29": lambda: machines.append(simulator.start_machine(0)),
            "32": lambda: simulator.end_machine(machines[0]),
        }
        found: dict[str, tuple[str, str]] = {}
        for name in NAMES:
            between.get(name[:2], lambda: None)()
            request = (RECORDINGS / f"{name}.request.xml").read_text().replace(IMAGES, str(safe))
            answer = asked(simulator, request.encode()).replace(str(safe), IMAGES)
            answer = answer.replace(str(folder / "one"), SERVER)
            recorded = (RECORDINGS / f"{name}.response.xml").read_bytes().decode()
            found[name] = (comparable(answer), comparable(recorded))
    return found


def test_there_are_recordings_and_each_request_has_its_answer():
    assert len(NAMES) == 34
    assert all((RECORDINGS / f"{name}.response.xml").is_file() for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_simulator_answers_what_the_real_one_answered(answers, name):
    answer, recorded = answers[name]

    assert answer == recorded
