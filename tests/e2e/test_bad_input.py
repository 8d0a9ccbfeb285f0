# SPDX-License-Identifier: Apache-2.0
"""Bad input, bad machines and interruptions: each told plainly by its own code, and each leaves the state as it was."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from coppice.testing.authority import Authority
from coppice.testing.images import MIB, qcow2
from coppice.testing.server import LoopbackServer, endless, serve, stall, without_length

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CANARY = "canary-5b0e1c, which no image may carry out"
RAW_ONLY = 'formats = ["raw"]'
QUICK = "read_timeout_seconds = 1\nattempts = 1"


# --- what an administrator writes


@pytest.fixture
def command_line(kit, tmp_path):
    return kit.CommandLine(tmp_path / "site", f'state_directory = "{tmp_path}/state"\n')


def test_an_unknown_setting_is_refused_with_the_nearest_known_and_nothing_is_done(command_line, tmp_path):
    with command_line.settings.open("a") as stream:
        stream.write("[transfer]\nallow_privat_addresses = true\n")
    for words in (("sync",), ("status",), ("subscription", "list")):
        ended = command_line.run("--json", *words)
        assert (ended.code, ended.codes) == (3, ["settings-invalid"])
        said = json.dumps(ended.said["errors"])
        assert "allow_privat_addresses" in said
        assert "allow_private_addresses" in said
    assert not (tmp_path / "state").exists()


def test_a_misspelt_key_of_a_definition_is_named_with_the_right_one_and_nothing_is_built(
    command_line, checkout, tmp_path
):
    folder = tmp_path / "definitions" / "mine"
    shutil.copytree(checkout / "definitions" / "debian-12", folder)
    path = folder / "appliance.toml"
    path.write_text(path.read_text().replace("disk-size", "disk-sise"))
    definitions = {"COPPICE_DEFINITIONS_DIRECTORY": str(folder.parent)}
    for words in (("definition", "validate", folder), ("build", "mine")):
        ended = command_line.run("--json", *words, environ=definitions)
        assert (ended.code, ended.codes) == (3, ["definition-invalid"])
        said = json.dumps(ended.said["errors"])
        assert "disk-sise" in said
        assert "disk-size" in said
    assert not (tmp_path / "state").exists()


@pytest.fixture
def endorser(tmp_path):
    return Authority.create("Example CA").issue("Jane Doe").write_to(tmp_path / "keys", "jane")


def add_endorser(command_line, certificate, key):
    words = ("endorser", "add", "jane", "--certificate", certificate, "--key", key, "--email", "jane@example.org")
    return command_line.run("--json", *words)


@pytest.mark.parametrize("kind", ["missing", "a folder", "garbage", "empty", "encrypted", "another's"])
def test_a_key_that_cannot_be_used_is_refused_and_no_endorser_is_kept(command_line, endorser, tmp_path, kind):
    certificate, key = endorser
    if kind == "encrypted":
        argv = ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret", "-in", key, "-out", tmp_path / "locked"]
        subprocess.run(argv, check=True, capture_output=True)
        key = tmp_path / "locked"
    elif kind == "another's":
        _, key = Authority.create("Example CA").issue("Mallory").write_to(tmp_path / "keys", "mallory")
    elif kind == "missing":
        key = tmp_path / "none.key"
    elif kind == "a folder":
        key = tmp_path
    else:
        key.write_bytes(b"" if kind == "empty" else b"\0\xffgarbage")
    ended = add_endorser(command_line, certificate, key)
    assert (ended.code, ended.codes) == (3, ["file-unreadable"]), ended
    assert str(key) in ended.said["errors"][0]["message"]
    assert command_line.ok("endorser", "list") == []


def test_a_key_that_went_bad_stops_publication_and_what_was_published_stays(kit, endorser, tmp_path):
    certificate, key = endorser
    settings = (
        f'state_directory = "{tmp_path}/state"\n[publishers.web]\ndriver = "directory"\npath = "{tmp_path}/web"\n'
    )
    publisher = kit.CommandLine(tmp_path / "publisher", settings)
    assert add_endorser(publisher, certificate, key).code == 0
    publisher.ok("imagelist", "create", "demo", "--endorser", "jane", "--publisher", "web", "--title", "Demo")
    assert publisher.ok("imagelist", "publish", "demo")["version"] == "1"
    before = kit.tree(tmp_path / "web")
    good = key.read_bytes()
    key.write_bytes(b"garbage")
    ended = publisher.run("--json", "imagelist", "publish", "demo")
    assert (ended.code, ended.codes) == (3, ["file-unreadable"])
    assert kit.tree(tmp_path / "web") == before
    key.write_bytes(good)
    assert publisher.ok("imagelist", "publish", "demo")["version"] == "2"


# --- what a publisher writes


@pytest.fixture(scope="module")
def settled(kit, tmp_path_factory, shared_server):
    site = kit.Site(tmp_path_factory.mktemp("lists") / "site", shared_server, transfer=QUICK)
    site.subscribe()
    site.synced()
    return site


def signed_list(site, change):
    document = site.publisher.document()
    document["hv:imagelist"]["hv:version"] = "3"
    change(document["hv:imagelist"])
    return site.publisher.message(payload=json.dumps(document).encode())


def duplicate_identifier(site):
    return signed_list(site, lambda content: content["hv:images"].append(content["hv:images"][0]))


def title_of_ten_megabytes(site):
    return signed_list(site, lambda content: content.update({"dc:title": "x" * 10**7}))


def deep_nesting(site):
    text = site.publisher.payload(version="3").decode()
    deep = "[" * 100_000 + "]" * 100_000
    return site.publisher.message(payload=text.replace('"dc:title"', f'"deep": {deep},\n "dc:title"', 1).encode())


def no_json(site):
    return site.publisher.message(payload=b"<html>no list</html>")


@pytest.mark.parametrize("make", [duplicate_identifier, title_of_ten_megabytes, deep_nesting, no_json])
def test_a_signed_list_that_is_malformed_is_refused_and_changes_nothing(settled, make):
    settled.publish(make(settled))
    before = settled.snapshot()
    ended = settled.sync()
    assert (ended.code, ended.codes) == (5, ["list-malformed"]), ended
    assert len(ended.stdout) < 10_000
    assert settled.snapshot() == before


@pytest.mark.parametrize("behaviour", [serve, without_length])
def test_a_list_with_a_title_of_a_hundred_megabytes_is_not_even_read_to_its_end(settled, behaviour):
    settled.server.set("/lists/demo.list", behaviour(b'{"hv:imagelist": {"dc:title": "' + b"x" * 10**8))
    before = settled.snapshot()
    ended = settled.sync()
    assert (ended.code, ended.codes) == (6, ["transfer-too-large"])
    assert settled.snapshot() == before


@pytest.mark.threat("T44")
def test_an_entry_whose_size_is_a_word_stays_as_it_is_and_the_others_are_followed(site, kit):
    site.first["hv:size"] = "big"
    site.publisher.add_image(title="Alma 9", data=kit.tiny_qcow2(site.root, seed=9))
    site.next_version()
    site.publish()
    ended = site.sync()
    assert (ended.code, ended.codes) == (1, ["document-invalid"])
    assert site.images() == {("Debian 12", "1"): "available", ("Alma 9", "1"): "available"}


BAD_IMAGES = {
    "wrong hash": "image-checksum",
    "too short": "image-size",
    "too long": "transfer-too-large",
    "endless": "transfer-too-large",
    "stalled": "transfer-stalled",
    "backing file": "image-outside-reference",
    "data file": "image-outside-reference",
    "no disk at all": "image-none",
}
REFUSED_BY_THE_CACHE = ("image-checksum", "image-size", "transfer-too-large", "transfer-stalled")


class BadWorld:
    """A site whose list names one image of each bad kind and good ones, synced once."""

    def __init__(self, kit, root, server) -> None:
        self.site = site = kit.Site(root / "site", server, transfer=QUICK)
        site.subscribe()
        site.synced()
        canary = root / "canary"
        canary.write_text(CANARY)
        hostile = {
            "backing file": qcow2(backing_file=str(canary)),
            "data file": qcow2(data_file=str(canary)),
            "no disk at all": b"<html>an error page</html>".ljust(4096),
        }
        self.good = kit.tiny_qcow2(root, seed=3)
        self.listed = {
            kind: site.publisher.add_image(title=kind, data=hostile.get(kind, self.good + kind.encode()))
            for kind in BAD_IMAGES
        }
        site.publisher.add_image(title="good", data=self.good)
        site.next_version()
        site.publish()
        data = self.good + b"wrong hash"
        self.lie("wrong hash", serve(data[::-1]))
        self.lie("too short", serve(self.good))
        self.lie("too long", serve(self.good + b"too long" + b"!"))
        self.lie("endless", endless())
        self.lie("stalled", stall(self.good + b"stalled", 1000))
        self.ended = site.sync()
        results = self.ended.data["clouds"][0]["results"]
        self.errors = {each["image"]: each["error"]["code"] for each in results if each["error"]}
        self.images = site.images()

    def lie(self, kind, behaviour):
        self.site.server.set(f"/lists/images/{self.listed[kind]['dc:identifier']}.qcow2", behaviour)


@pytest.fixture(scope="module")
def bad_world(kit, tmp_path_factory):
    with LoopbackServer() as server:
        yield BadWorld(kit, tmp_path_factory.mktemp("images"), server)


@pytest.mark.threat("T48")
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_an_image_that_is_not_what_was_signed_or_is_hostile_is_refused_by_its_own_code(bad_world, kind):
    listed = bad_world.listed[kind]
    assert bad_world.errors[listed["dc:identifier"]] == BAD_IMAGES[kind]
    assert kind not in {title for title, _ in bad_world.images}
    if BAD_IMAGES[kind] in REFUSED_BY_THE_CACHE:
        assert not list(bad_world.site.state.glob(f"cache/objects/*/{listed['sl:checksum:sha512']}*"))


def test_beside_bad_images_the_good_ones_are_registered_and_nothing_half_made_is_left(bad_world):
    assert bad_world.ended.code == 1
    assert bad_world.ended.said["status"] == "partial"
    assert bad_world.images == {("Debian 12", "1"): "available", ("good", "1"): "available"}
    # What stalled may be gone on with; all else was another file.
    (kept,) = bad_world.site.leftovers()
    assert kept.name == f"sha512-{bad_world.listed['stalled']['sl:checksum:sha512']}.partial"


@pytest.mark.threat("T58")
@pytest.mark.threat("T59")
def test_a_file_that_a_hostile_image_names_is_read_by_nothing(bad_world):
    for path in bad_world.site.root.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes()
    assert CANARY not in bad_world.ended.stdout + bad_world.ended.stderr


# --- what the machine lacks


def in_a_namespace(*words):
    """Return the words that run a command with mounts of its own; skip where this machine forbids that."""
    before = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    if subprocess.run([*before, "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True).returncode:
        pytest.skip("mounts of one's own are not allowed here")
    return [*before, *words]


@pytest.fixture(scope="module")
def seed(kit, tmp_path_factory, shared_server):
    """Return a subscribed site that has nothing yet; a small and a large image are listed."""
    site = kit.Site(tmp_path_factory.mktemp("seed") / "site", shared_server, cloud=RAW_ONLY)
    large = kit.tiny_qcow2(site.root, size_bytes=12 * MIB, seed=7, full=True)
    site.large = site.publisher.add_image(title="large", data=large)
    site.publish()
    site.subscribe()
    return site


@pytest.fixture
def fresh(seed, tmp_path):
    seed.publish()
    return seed.copy_to(tmp_path / "copy")


BOTH = {("Debian 12", "1"): "available", ("large", "1"): "available"}


@pytest.mark.threat("T70")
def test_a_missing_tool_is_named_with_its_package_and_the_next_run_needs_no_second_download(fresh):
    tool = Path(shutil.which("qemu-img")).resolve()
    hide = in_a_namespace("sh", "-c", f'mount --bind /dev/null {tool} && exec "$@"', "sh")
    ended = fresh.run("--json", "sync", before=hide)
    assert ended.code != 0
    assert set(ended.codes) == {"tool-missing"}
    assert "qemu-utils" in ended.said["errors"][0]["resolution"]
    assert fresh.images() == {}
    fetched = len(fresh.server.requests)
    fresh.synced()
    assert [each.path for each in fresh.server.requests[fetched:]] == ["/lists/demo.list"]
    assert fresh.images() == BOTH


@pytest.mark.threat("T81")
@pytest.mark.parametrize(("place", "size_mib"), [("state/cache", 20), ("state/conversion", 22), ("cloud", 6)])
def test_a_full_disk_is_told_and_nothing_half_made_stays_on_it(fresh, tmp_path, place, size_mib):
    full, after = fresh.root / place, tmp_path / "after"
    full.mkdir(parents=True, exist_ok=True)
    after.mkdir()
    script = f'mount -t tmpfs -o size={size_mib}m none {full} && "$@"; code=$?; cp -a {full}/. {after}; exit $code'
    ended = fresh.run("--json", "sync", before=in_a_namespace("sh", "-c", script, "sh"))
    assert (ended.code, ended.codes) == (1, ["storage-full"]), ended
    assert "large" in json.dumps(ended.said["errors"]) or str(full) in json.dumps(ended.said["errors"])
    assert list(after.rglob("*.partial")) == []
    assert len([path for path in after.rglob("*") if path.is_file() and path.stat().st_size > 10 * MIB]) == 0
    fresh.synced()
    assert fresh.images() == BOTH


@pytest.mark.threat("T81")
def test_a_disk_that_gets_full_in_the_middle_of_a_download_is_told_and_the_half_is_removed(fresh):
    ended = fresh.run("--json", "sync", before=["prlimit", f"--fsize={8 * MIB}:unlimited"])
    assert (ended.code, ended.codes) == (1, ["storage-full"]), ended
    assert fresh.leftovers() == []
    assert fresh.images() == {("Debian 12", "1"): "available"}
    fresh.synced()
    assert fresh.images() == BOTH


# --- Ctrl-C and termination

SLOW_TOOL = """#!/bin/sh
for last; do :; done
if [ "$1" = convert ]; then echo begun > "$last"; while :; do :; done; fi
exec {tool} "$@"
"""
"""Takes the place of qemu-img; shut in, it can write to nothing but its output, and start nothing."""


def running_below(folder):
    """Return the processes whose command line names something of a folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in each.read_bytes():
                found.append(each.parent.name)
    return found


def interrupted(kit, site, number, began, environ=None):
    """Start a sync, send the signal to all of its group when ``began()``; return what it said."""
    with kit.running(site.start("sync", environ=environ)) as child:
        kit.wait_until(lambda: began() or child.poll() is not None)
        assert child.poll() is None
        sent = time.monotonic()
        os.killpg(child.pid, number)
        stdout, stderr = child.communicate(timeout=60)
        assert time.monotonic() - sent < 15
    assert child.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    errors = [line for line in stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert errors[0].startswith("error[interrupted]: ")
    assert "Traceback" not in stdout + stderr
    return stderr


@pytest.mark.threat("T82")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_download_leaves_nothing_half_made(kit, fresh, number):
    name = f"/lists/images/{fresh.large['dc:identifier']}.qcow2"
    fresh.server.set(name, stall(fresh.publisher.files[name.rpartition("/")[2]], 5 * MIB))
    partial = fresh.state / "cache" / "partial"

    def is_alone_and_in_the_middle():
        # The small image is here, with its record: nothing else is under way.
        is_other_done = any(fresh.state.glob("cache/objects/*/*.json"))
        return is_other_done and any(each.stat().st_size > 4 * MIB for each in partial.glob("*.partial"))

    interrupted(kit, fresh, number, is_alone_and_in_the_middle)
    # What came is kept for the next run, and nothing else.
    assert [each.parent for each in fresh.leftovers()] == [partial], fresh.leftovers()
    fresh.publish()
    fresh.synced()
    assert fresh.leftovers() == []
    assert fresh.images() == BOTH


@pytest.mark.threat("T82")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_conversion_ends_the_tool_and_leaves_nothing_half_made(
    kit, fresh, tmp_path, number
):
    tools, made = tmp_path / "tools", fresh.state / "conversion" / "objects"
    tools.mkdir()
    (tools / "qemu-img").write_text(SLOW_TOOL.format(tool=shutil.which("qemu-img")))
    (tools / "qemu-img").chmod(0o755)
    environ = {"PATH": f"{tools}:{os.environ['PATH']}"}
    interrupted(kit, fresh, number, lambda: b"begun\n" in [each.read_bytes() for each in made.glob(".*")], environ)
    assert running_below(tools) == []
    assert fresh.leftovers() == []
    assert fresh.images() == {}
    fresh.synced()
    assert fresh.images() == BOTH
