# SPDX-License-Identifier: Apache-2.0
"""Each publisher, killed at points spread over its run, while a reader looks all the time.

Every version brings a new large image and a new small one, and keeps one of the version before; the run that is killed
publishes it and retires what has been unnamed long enough.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import pytest

from coppice.imagelist.place import Kind
from coppice.imagelist.publication import PlacePublisher
from coppice.imagelist.publishers import load_publisher
from coppice.monitor import SILENT
from coppice.settings.model import PublisherSettings
from coppice.testing.publishing import SERVERS, open_server
from coppice.testing.publishing.edition import Edition, Editor

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from coppice.testing.publishing.server import PublishingServer

pytestmark = pytest.mark.integration
AREA = "kill"
LARGE = {"s3": 5_500_000, "oci": 2_500_000}
"""More than one part of an S3 upload (5 MiB at least), and several chunks of an OCI upload; two megabytes elsewhere."""
SMALL = 100_000
POINTS, MANY_POINTS = 2, 100
TRIES = 10

# Has everything loaded, and forks a child for each publication: that child is killed.
PUBLISHING = """
import json, os, sys
from datetime import datetime
from pathlib import Path
import paramiko, boto3, urllib3
from coppice.formats.hepix import read_list
from coppice.imagelist.model import SignedImageList
from coppice.imagelist.publishers import load_publisher
from coppice.model.checksum import Checksum
from coppice.model.endorser import DistinguishedName
from coppice.monitor import SILENT
from coppice.settings.model import PublisherSettings

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        os.close(0)
        publisher = load_publisher(
            PublisherSettings(name="here", driver=order["driver"], options=order["options"])
        )
        content = read_list(Path(order["payload"]).read_bytes())
        signed = SignedImageList(
            content=content,
            message=Path(order["message"]).read_bytes(),
            payload_checksum=Checksum.of(b""),
            signer=content.endorsers[0].subject,
        )
        files = {name: Path(path) for name, path in order["files"].items()}
        publisher.prepare(files, SILENT)
        publisher.publish("demo", signed, files, SILENT)
        publisher.retire(unnamed_since=datetime.fromisoformat(order["unnamed_since"]), monitor=SILENT)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

# Looks until its input ends, then says what it saw.
READING = """
import hashlib, json, os, random, select, sys, time
from pathlib import Path
from coppice.formats.cms import open_message
from coppice.testing.publishing import SERVERS

driver, directory, port, uri = sys.argv[1:]
server = SERVERS[driver](Path(directory))
server.port = int(port)
looks, versions, faults = 0, [], []

def look():
    message = server.fetch(uri)
    if message is None:
        raise AssertionError("the list is missing")
    content = json.loads(open_message(message).payload)["hv:imagelist"]
    if content["hv:version"] not in versions:
        versions.append(content["hv:version"])
    images = [entry["hv:image"] for entry in content["hv:images"]]
    for image in images:
        size = server.size(image["hv:uri"])
        if size != int(image["hv:size"]):
            raise AssertionError(f"version {content['hv:version']} names {image['hv:uri']}: {size} bytes are there")
    sample = random.choice(images)
    if hashlib.sha512(server.fetch(sample["hv:uri"])).hexdigest() != sample["sl:checksum:sha512"]:
        raise AssertionError(f"{sample['hv:uri']} has other bytes than version {content['hv:version']} says")

pause = 0
while not select.select([sys.stdin], [], [], pause)[0]:
    began = time.monotonic()
    try:
        look()
    except Exception as problem:
        faults.append(f"{type(problem).__name__}: {problem} {getattr(problem, 'details', '')}")
    # As long as it took: a reader that leaves the server no time would only make the run longer.
    pause = time.monotonic() - began
    looks += 1
    if looks == 1:
        print("looking", flush=True)
print(json.dumps({"looks": looks, "versions": versions, "faults": faults}), flush=True)
"""


class Reader:
    """A process that looks all the time."""

    def __init__(self, driver: str, server: PublishingServer, uri: str) -> None:
        argv = [sys.executable, "-c", READING, driver, str(server.directory), str(server.port), uri]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seen: dict[str, Any] = {}

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "looking\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        said, _ = self._process.communicate("enough\n", timeout=60)
        self.seen = json.loads(said)


@dataclass
class Outcome:
    seconds: float
    status: int


class Workshop:
    """Publishes in children that can be killed."""

    def __init__(self, driver: str, server: PublishingServer, directory: Path) -> None:
        self._driver, self._server, self._directory = driver, server, directory
        self._process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._previous = self._before = datetime.now(UTC)
        self.editor = Editor(directory)
        self._number = 0
        self._kept: tuple[str, Path] | None = None
        found = load_publisher(PublisherSettings(name="here", driver=driver, options=server.options(AREA)))
        assert isinstance(found, PlacePublisher)
        self.publisher = found
        self.list_uri = found.list_uri("demo")

    def next_edition(self) -> Edition:
        self._number += 1
        new = {
            f"large-{self._number}.qcow2": self.editor.image(
                f"large-{self._number}", LARGE.get(self._driver, 2_000_000)
            ),
            f"small-{self._number}.qcow2": self.editor.image(f"small-{self._number}", SMALL),
        }
        files = {**new, **(dict([self._kept]) if self._kept else {})}
        self._kept = next(reversed(new.items()))
        # What the version before the last one replaced may go by now; its readers had a whole version's time.
        self._before, self._previous = self._previous, datetime.now(UTC)
        return self.editor.edition(self.publisher, files)

    def publish(self, edition: Edition, *, kill_after: float | None = None) -> Outcome:
        message, payload = self._directory / "message", self._directory / "payload"
        message.write_bytes(edition.signed.message)
        payload.write_bytes(edition.payload)
        order = {
            "driver": self._driver,
            "options": self._server.options(AREA),
            "message": str(message),
            "payload": str(payload),
            "files": {name: str(path) for name, path in edition.files.items()},
            "unnamed_since": self._before.isoformat(),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        began = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            # Its parent waits for it: until then the number stays its own, or the signal finds nobody.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        status = int(self._process.stdout.readline())
        return Outcome(seconds=time.monotonic() - began, status=status)

    def end(self) -> None:
        self._process.communicate()


def check_whole(workshop: Workshop, server: PublishingServer, edition: Edition) -> None:
    publisher = workshop.publisher
    assert server.fetch(workshop.list_uri) == edition.signed.message
    for name, path in edition.files.items():
        assert server.fetch(edition_uri(edition, name, publisher)) == path.read_bytes()
    publisher.place.sweep(older_than_seconds=0)
    assert server.leftovers(AREA) == []
    # The note of a removal that was killed counts for an hour, and is swept then.
    notes = {name for name in publisher.place.names(Kind.NOTE) if not name.startswith("removal-")}
    assert notes <= {"ledger-demo.json", "unnamed.json"}
    # Those of this version, and those that the last two left behind; all older ones were retired.
    assert set(edition.files) <= set(publisher.place.names(Kind.IMAGE))
    assert len(publisher.place.names(Kind.IMAGE)) <= len(edition.files) + 4


def edition_uri(edition: Edition, name: str, publisher: PlacePublisher) -> str:
    publisher.prepare({name: edition.files[name]}, SILENT)
    return publisher.image_uri(name)


def kill_at(share: float, workshop: Workshop, seconds: float) -> tuple[Edition, float]:
    """Kill a run when this share of it is over; return what it was to publish, and how long a run takes now.

    A run that ended before its time was not killed: it was measured on a machine that does other things too.
    """
    for _ in range(TRIES):
        edition = workshop.next_edition()
        outcome = workshop.publish(edition, kill_after=seconds * share)
        if outcome.status == -signal.SIGKILL:
            return edition, seconds
        assert outcome.status == 0
        seconds = 0.9 * min(seconds, outcome.seconds)
    pytest.fail(f"no run could be killed in {TRIES} tries")


def campaign(driver: str, points: int, tmp_path: Path) -> None:
    with open_server(driver, tmp_path / "server") as server:
        workshop = Workshop(driver, server, tmp_path)
        try:
            assert workshop.publish(workshop.next_edition()).status == 0
            with Reader(driver, server, workshop.list_uri) as reader:
                measured = workshop.publish(workshop.next_edition())
                assert measured.status == 0
                seconds = measured.seconds
                for point in range(points):
                    edition, seconds = kill_at((point + 0.5) / points, workshop, seconds)
                    assert workshop.publish(edition).status == 0
                    check_whole(workshop, server, edition)
        finally:
            workshop.end()
    seen = reader.seen
    print(f"{driver}: {points} kills, {seen['looks']} looks, {len(seen['versions'])} versions, {seen['faults']}")  # noqa: T201 - the figures
    assert reader.seen["faults"] == []
    assert reader.seen["looks"] >= points
    assert len(reader.seen["versions"]) >= points // 2


@pytest.mark.threat("T79")
@pytest.mark.parametrize("driver", list(SERVERS))
def test_a_publisher_killed_at_some_points_never_shows_a_missing_or_inconsistent_list(driver: str, tmp_path: Path):
    campaign(driver, POINTS, tmp_path)


@pytest.mark.soak
@pytest.mark.threat("T79")
@pytest.mark.parametrize("driver", list(SERVERS))
def test_a_publisher_killed_at_a_hundred_points_never_shows_a_missing_or_inconsistent_list(driver: str, tmp_path: Path):
    campaign(driver, MANY_POINTS, tmp_path)
