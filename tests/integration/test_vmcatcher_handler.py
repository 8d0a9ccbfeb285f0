# SPDX-License-Identifier: Apache-2.0
"""A handler that a site wrote for vmcatcher, through the real command line: the right events, in the right order."""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cli.main import main
from coppice.clock import SystemClock
from coppice.testing.authority import Authority
from coppice.testing.server import conditional, serve
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.testing.server import LoopbackServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

HANDLER = """#!/bin/sh
# As sites have them: what is available is taken from the cache, what has expired is forgotten.
set -e
spool=@SPOOL@
file=$VMCATCHER_CACHE_DIR_CACHE/$VMCATCHER_EVENT_FILENAME
case $VMCATCHER_EVENT_TYPE in
  AvailablePostfix)
    printf '%s  %s\\n' "$VMCATCHER_EVENT_SL_CHECKSUM_SHA512" "$file" | sha512sum --check --quiet
    cp "$file" "$spool/images/$VMCATCHER_EVENT_DC_IDENTIFIER.$VMCATCHER_EVENT_HV_FORMAT"
    ;;
  ExpirePostfix)
    rm -f "$spool/images/$VMCATCHER_EVENT_DC_IDENTIFIER".*
    ;;
  ProcessPrefix|ProcessPostfix|AvailablePrefix|ExpirePrefix|SubscriptionImageNew)
    ;;
  *)
    echo "unknown: $VMCATCHER_EVENT_TYPE" >&2
    exit 1
    ;;
esac
printf '%s %s %s %s %s\\n' "$VMCATCHER_EVENT_TYPE" "${VMCATCHER_EVENT_DC_IDENTIFIER:--}" \\
  "${VMCATCHER_EVENT_HV_VERSION:--}" "${VMCATCHER_EVENT_IL_DC_IDENTIFIER:--}" \\
  "$VMCATCHER_EVENT_UUID_SESSION" >> "$spool/log"
"""


class Site:
    """A site whose handler registers images, and the publisher that it follows."""

    def __init__(self, path: Path, server: LoopbackServer, capture: Any) -> None:
        self.path, self.server, self.capture = path, server, capture
        self.spool = path / "spool"
        (self.spool / "images").mkdir(parents=True)
        handler = path / "handler.sh"
        handler.write_text(HANDLER.replace("@SPOOL@", str(self.spool)))
        handler.chmod(0o755)
        (path / "coppice.toml").write_text(
            f'state_directory = "{path}/state"\n'
            "[transfer]\nallow_private_addresses = true\n"
            f'[hooks.site]\nkind = "program"\ncompat = "vmcatcher"\ncommand = ["{handler}"]\n'
            '[hooks.archive]\nkind = "program"\ncompat = "vmcatcher"\n'
            f'command = ["{sys.executable}", "-m", "coppice", "event", "archive", "--directory", "{path}/archive"]\n'
        )
        authority = Authority.create("Example CA")
        self.anchors = authority.write_to(path / "anchors")
        self.publisher = Simulator.create(authority, uri=server.url("/list"))
        self.certificate, _ = self.publisher.endorser.write_to(path, "jane")
        self.seen = 0

    def publish(self, version: str) -> None:
        self.publisher.version = version
        self.server.set("/list", conditional(self.publisher.message(), etag=f'"{version}"'))
        for name, data in self.publisher.files.items():
            self.server.set(f"/images/{name}", serve(data))

    def run(self, *words: object, code: int = 0) -> Any:
        got = main(["--config", str(self.path / "coppice.toml"), "--json", *map(str, words)])
        out, err = self.capture.readouterr()
        assert got == code, (words, out, err)
        return json.loads(out)

    def told(self) -> list[tuple[str, str, str]]:
        """Return type, image and version of what the handler was told since it was asked last."""
        log = self.spool / "log"
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        new, self.seen = lines[self.seen :], len(lines)
        run = [line for line in new if line[0] != "SubscriptionImageNew"]
        assert len({line[4] for line in run}) <= 1, "one run is one session"
        assert {line[3] for line in new if line[1] != "-"} <= {self.publisher.identifier}
        return [(line[0], line[1], line[2]) for line in new]

    def images(self) -> dict[str, str]:
        found = {each.stem: each for each in (self.spool / "images").iterdir()}
        return {name: hashlib.sha512(each.read_bytes()).hexdigest() for name, each in found.items()}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any, loopback_server: LoopbackServer) -> Site:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Site(tmp_path, loopback_server, capfd)


def replaced(site: Site, image: dict[str, Any], data: bytes, version: str) -> None:
    site.publisher.files[image["hv:uri"].rsplit("/", 1)[1]] = data
    image.update(
        {"hv:version": version, "hv:size": str(len(data)), "sl:checksum:sha512": hashlib.sha512(data).hexdigest()}
    )


def test_a_handler_is_told_of_a_new_list_an_update_a_withdrawal_and_an_expired_list_in_their_order(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = site.publisher.add_image(title="Debian 12", data=b"one", ad_group="general")
    second = site.publisher.add_image(title="$(touch pwned)\n`id`", data=b"two")
    one, two = first["dc:identifier"], second["dc:identifier"]
    site.publish("1")
    site.run(
        "subscription", "add", "lab", site.publisher.uri,
        "--anchors", site.anchors, "--endorser-certificate", site.certificate,
    )  # fmt: skip
    site.run("subscription", "refresh")
    assert site.told() == [("SubscriptionImageNew", one, "1"), ("SubscriptionImageNew", two, "1")]

    # A new list.
    site.run("cache", "fetch")
    assert site.told() == [
        ("ProcessPrefix", "-", "-"),
        ("AvailablePrefix", one, "1"),
        ("AvailablePostfix", one, "1"),
        ("AvailablePrefix", two, "1"),
        ("AvailablePostfix", two, "1"),
        ("ProcessPostfix", "-", "-"),
    ]
    assert site.images() == {one: first["sl:checksum:sha512"], two: second["sl:checksum:sha512"]}

    # Nothing new.
    site.run("cache", "fetch")
    assert site.told() == [("ProcessPrefix", "-", "-"), ("ProcessPostfix", "-", "-")]

    # An image has another version: the old one leaves, the new one comes.
    replaced(site, first, b"one, updated", "2")
    site.publish("2")
    site.run("subscription", "refresh")
    site.run("cache", "fetch")
    assert site.told() == [
        ("ProcessPrefix", "-", "-"),
        ("ExpirePrefix", one, "1"),
        ("ExpirePostfix", one, "1"),
        ("AvailablePrefix", one, "2"),
        ("AvailablePostfix", one, "2"),
        ("ProcessPostfix", "-", "-"),
    ]
    assert site.images()[one] == first["sl:checksum:sha512"]
    (changed,) = site.run("event", "list", "--kind", "ImageChanged")["data"]["events"]
    assert (changed["image"], changed["facts"]["previous_version"], changed["facts"]["version"]) == (one, "1", "2")

    # An image is withdrawn; and the list ends soon.
    site.publisher.images.remove(second)
    site.publisher.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    site.publish("3")
    site.run("subscription", "refresh")
    site.run("cache", "fetch")
    assert site.told() == [
        ("ProcessPrefix", "-", "-"),
        ("ExpirePrefix", two, "1"),
        ("ExpirePostfix", two, "1"),
        ("ProcessPostfix", "-", "-"),
    ]
    assert set(site.images()) == {one}

    # Two hours on the list has expired, and its source is silent.
    monkeypatch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + timedelta(hours=2))
    site.run("cache", "fetch")
    assert site.told() == [
        ("ProcessPrefix", "-", "-"),
        ("ExpirePrefix", one, "2"),
        ("ExpirePostfix", one, "2"),
        ("ProcessPostfix", "-", "-"),
    ]
    assert site.images() == {}
    hooks = {each["name"]: each for each in site.run("event", "hooks")["data"]["hooks"]}
    assert [(each["waiting"], each["parked"]) for each in hooks.values()] == [(0, 0), (0, 0)]

    # What was archived on the way is, read elsewhere, the same once more.
    elsewhere = site.path / "elsewhere.toml"
    elsewhere.write_text(f'state_directory = "{site.path}/elsewhere"\n')
    assert main(["--config", str(elsewhere), "--json", "event", "import", str(site.path / "archive")]) == 0
    site.capture.readouterr()
    assert main(["--config", str(elsewhere), "--json", "event", "list", "--image", one]) == 0
    kinds = [each["kind"] for each in json.loads(site.capture.readouterr().out)["data"]["events"]]
    there = site.run("event", "list", "--image", one)["data"]["events"]
    told = {"ImageNew", "ImageCaching", "ImageCached", "ImageUncaching", "ImageUncached"}
    assert kinds == [each["kind"] for each in there if each["kind"] in told]
    assert [each for each in kinds if each != "ImageNew"] == [
        *("ImageCaching", "ImageCached", "ImageUncaching", "ImageUncached"),
        *("ImageCaching", "ImageCached", "ImageUncaching", "ImageUncached"),
    ]
