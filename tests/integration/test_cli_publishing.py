# SPDX-License-Identifier: Apache-2.0
"""The commands of a publisher, from an empty machine to a list that openssl verifies and a site could follow."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from coppice.cli.main import main
from coppice.model.checksum import Checksum
from coppice.testing import images
from coppice.testing.authority import Authority

pytestmark = pytest.mark.integration


class Publisher:
    """A publisher with the command line."""

    def __init__(self, root, capfdbinary) -> None:
        self.root, self._captured = root, capfdbinary
        (root / "coppice.toml").write_text(
            f'state_directory = "{root}/state"\n'
            f'[publishers.web]\ndriver = "directory"\npath = "{root}/web"\nurl = "https://images.example.org"\n'
        )
        self.authority = Authority.create("Example CA")
        self.authority.write_to(root / "anchors", crl=self.authority.crl())
        for name in ("jane", "joe"):
            certificate, key = self.authority.issue(name.title()).write_to(root / "keys", name)
            self.run(
                "endorser", "add", name, "--certificate", certificate, "--key", key, "--email", f"{name}@x.example"
            )

    def raw(self, *arguments):
        self._captured.readouterr()
        code = main(["--config", str(self.root / "coppice.toml"), *map(str, arguments)])
        said = self._captured.readouterr()
        assert b"Traceback" not in said.out + said.err
        return code, said.out, said.err.decode()

    def run(self, *arguments, code=0):
        got, out, err = self.raw("--json", *arguments)
        said = json.loads(out)
        assert got == code, (arguments, said, err)
        self.messages = said["messages"]
        return said["data"] if code == 0 else said["errors"][0]

    def add(self, name, version="1", seed=0):
        content = images.raw_disk() + bytes([seed]) * 512
        folder = self.root / f"{name}-{version}"
        folder.mkdir()
        (folder / "disk.raw").write_bytes(content)
        disk = {
            "path": "disk.raw",
            "format": "raw",
            "size_bytes": len(content),
            "virtual_size_bytes": len(content),
            "sha512": Checksum.of(content).hexdigest,
        }
        document = {
            "action": "registration",
            "identifier": name,
            "version": version,
            "title": name.title(),
            "os": {"distribution": "Debian", "version": "12"},
            "created": "2026-11-20T00:00:00Z",
            "disks": [disk],
        }
        (folder / "descriptor.json").write_text(json.dumps(document))
        return self.run("appliance", "add", "--descriptor", folder / "descriptor.json")


@pytest.fixture
def coppice(tmp_path, capfdbinary, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return Publisher(tmp_path, capfdbinary)


@pytest.fixture
def general(coppice):
    coppice.add("alpha")
    coppice.run("imagelist", "create", "general", "--endorser", "jane", "--publisher", "web", "--title", "General")
    coppice.run("imagelist", "add", "general", "alpha")
    return coppice


def test_what_is_published_verifies_with_openssl(general, tmp_path):
    assert general.run("imagelist", "publish", "general")["version"] == "1"
    anchors = tmp_path / "anchors/ca.pem"
    for command in ("cms", "smime"):
        ended = subprocess.run(
            [
                "openssl",
                command,
                "-verify",
                "-purpose",
                "any",
                "-CAfile",
                anchors,
                "-in",
                tmp_path / "web/general.list",
            ],
            capture_output=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["hv:imagelist"]["hv:version"] == "1"


_KILLED = """
import os, signal, sys
from coppice.cli.main import main
from coppice.imagelist import publication
def kill(*_arguments, **_options): os.kill(os.getpid(), signal.SIGKILL)
{point} = kill
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("point", "version"),
    [
        ("import coppice.workflows.publish as p; p.sign_list", "1"),
        ("publication.PlacePublisher.publish", "2"),
        ("import coppice.catalogue.history as h; h.PublicationHistory.record_published", "2"),
    ],
)
def test_a_publication_that_is_killed_goes_on_and_no_version_has_two_contents(general, tmp_path, point, version):
    program = _KILLED.format(point=point)
    arguments = ["--config", str(tmp_path / "coppice.toml"), "imagelist", "publish", "general"]
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, check=False)
    assert ended.returncode == -9, ended.stderr
    there = tmp_path / "web/general.list"
    before = there.read_bytes() if there.exists() else None
    assert general.run("imagelist", "publish", "general")["version"] == version
    entries = general.run("imagelist", "history", "general")
    assert len({entry["version"] for entry in entries}) == len(entries)
    if before is not None:
        assert [entry["state"] for entry in entries] == ["published", "published"]
        assert general.raw("imagelist", "history", "general", "--raw", "1")[1] == before


def test_a_list_is_made_from_a_filled_in_template(coppice, tmp_path):
    code, out, _ = coppice.raw("imagelist", "template")
    assert code == 0
    filled = out.decode().replace('title = ""', 'title = "Filled"').replace('endorser = ""', 'endorser = "jane"')
    filled = filled.replace('publisher = ""', 'publisher = "web"').replace("# [keys]", "[keys]")
    (tmp_path / "list.toml").write_text(filled + '"example:tier" = "gold"\n')
    made = coppice.run("imagelist", "create", "filled", "--from", tmp_path / "list.toml", "--set", "vo=vo.example.org")
    assert (made["title"], made["vo"], made["lifetime_days"]) == ("Filled", "vo.example.org", 28)
    assert made["keys"] == {"example:tier": "gold"}
    as_json = coppice.run("imagelist", "template", "--format", "json")
    as_json |= {"title": "Other", "endorser": "jane", "publisher": "web"}
    (tmp_path / "list.json").write_text(json.dumps(as_json))
    assert coppice.run("imagelist", "create", "other", "--from", tmp_path / "list.json")["title"] == "Other"


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"title = ", b'{"title": 1, "title": 2}', b"unknown = 1", b'lifetime = "x"', b"keys = 3", b"a" * 9],
)
def test_a_file_that_is_no_template_is_refused(coppice, tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    error = coppice.run("imagelist", "create", "x", "--from", tmp_path / "file", code=3)
    assert error["code"] in {"input-invalid", "document-invalid"}


def test_a_list_keeps_its_own_identifier(coppice):
    arguments = ("--endorser", "jane", "--publisher", "web", "--title", "T", "--lifetime", "7")
    wanted = "2F1C0D3E-6F4A-4A39-9B0E-4D1A7C0B9F11"
    made = coppice.run("imagelist", "create", "kept", *arguments, "--identifier", wanted)
    assert (made["identifier"], made["lifetime_days"]) == (wanted.lower(), 7)
    assert (
        coppice.run("imagelist", "create", "k2", *arguments, "--identifier", wanted, code=12)["code"]
        == "exists-already"
    )
    assert coppice.run("imagelist", "create", "k3", *arguments, "--identifier", "x", code=3)["code"] == "input-invalid"


def test_an_edit_changes_what_is_asked_for_and_says_so(general):
    said = general.run(
        "imagelist", "edit", "general", "--set", "title=New", "--set", "hv:version=7", "--set", "ad:vo=atlas"
    )
    assert {change["key"]: change["now"] for change in said["changes"]} == {
        "title": "New",
        "version": "7",
        "vo": "atlas",
    }
    general.run("imagelist", "edit", "general", "--unset", "vo", "--set-json", 'example:tiers=["a", {"b": 1}]')
    shown = general.run("imagelist", "show", "general")
    assert (shown["vo"], shown["keys"], shown["next_version"]) == (None, {"example:tiers": ["a", {"b": 1}]}, "8")
    dry = general.run("imagelist", "edit", "general", "--set", "title=Newer", "--dry-run")
    assert dry["changes"] == [{"key": "title", "before": "New", "now": "Newer"}]
    assert general.run("imagelist", "show", "general")["title"] == "New"


_BAD_EDITS = [
    ("--set", "title="),
    ("--set", "title=two\nlines"),
    ("--set", "title=" + "x" * 5000),
    ("--set", "title=\udcff"),
    ("--set", "lifetime=0"),
    ("--set", "lifetime=4000"),
    ("--set", "lifetime=soon"),
    ("--set", "endorser=nobody"),
    ("--set", "publisher=nowhere"),
    ("--set", "vo=no spaces"),
    ("--set", "identifier=2f1c0d3e-6f4a-4a39-9b0e-4d1a7c0b9f11"),
    ("--set", "dc:identifier=2f1c0d3e-6f4a-4a39-9b0e-4d1a7c0b9f11"),
    ("--set", "hv:uri=https://x/"),
    ("--set", "coppice:set=x"),
    ("--set", "unknown=x"),
    ("--set", "version=~"),
    ("--set", "version=" + "9" * 256),
    ("--unset", "title"),
    ("--unset", "example:absent"),
    ("--set-json", "example:x=NaN"),
    ("--set-json", "example:x=1, 2"),
    ("--set-json", 'example:x=1, "y": 2'),
    ("--set-json", 'example:x="\\ud800"'),
    ("--set-json", "example:x=" + "[" * 50 + "]" * 50),
    ("--set", "title=good", "--set", "vo=no spaces"),
]


def test_an_edit_that_contradicts_itself_changes_nothing(general):
    before = general.run("imagelist", "show", "general")
    for arguments in _BAD_EDITS:
        assert general.run("imagelist", "edit", "general", *arguments, code=3)["code"] == "list-inconsistent"
        assert general.run("imagelist", "show", "general") == before


def test_a_version_can_only_rise(general):
    general.run("imagelist", "edit", "general", "--set", "version=5")
    assert "never goes down" in general.run("imagelist", "edit", "general", "--set", "version=4", code=3)["message"]
    assert general.run("imagelist", "publish", "general")["version"] == "6"


@pytest.mark.parametrize("arguments", [(), ("--set", "title"), ("--set", "title=a", "--unset", "title")])
def test_an_edit_that_cannot_be_understood_is_a_usage_error(general, arguments):
    assert general.run("imagelist", "edit", "general", *arguments, code=2)["code"] == "usage"


def test_a_long_text_comes_from_a_file(general, tmp_path):
    (tmp_path / "text").write_text("One paragraph.\nAnother.\n")
    general.run("imagelist", "edit", "general", "--set-file", f"description={tmp_path}/text")
    assert general.run("imagelist", "show", "general")["description"] == "One paragraph.\nAnother."
    assert general.run("imagelist", "edit", "general", "--set-file", "description=/nowhere", code=3)["code"] == (
        "file-unreadable"
    )


def test_several_endorsers_are_bound_and_one_signs(general):
    bound = general.run("imagelist", "bind-endorser", "general", "joe")
    assert bound["endorsers"] == ["jane", "joe"]
    assert general.run("endorser", "remove", "joe", code=12)["code"] == "exists-already"
    assert "Joe" in general.run("imagelist", "publish", "general", "--as", "joe")["signer"]
    assert "Jane" in general.run("imagelist", "publish", "general")["signer"]
    assert general.run("imagelist", "unbind-endorser", "general", "jane", code=3)["code"] == "list-inconsistent"
    general.run("imagelist", "edit", "general", "--set", "endorser=joe")
    assert general.run("imagelist", "show", "general")["endorsers"] == ["joe", "jane"]
    general.run("imagelist", "unbind-endorser", "general", "jane")
    assert general.run("imagelist", "publish", "general", "--as", "jane", code=3)["code"] == "list-inconsistent"


def test_a_preview_shows_the_difference_and_writes_nothing(general, tmp_path):
    shown = general.run("imagelist", "publish", "general", "--dry-run")
    assert [image["kind"] for image in shown["difference"]["images"]] == ["added"]
    assert not (tmp_path / "web").exists()
    general.run("imagelist", "publish", "general")
    general.add("alpha", "2", seed=2)
    code, out, err = general.raw("imagelist", "publish", "general", "--dry-run")
    assert code == 0
    assert b"new-version" in out
    assert "--dry-run" in err
    assert (
        general.run("imagelist", "publish", "general", "--dry-run", "--as", "joe", code=3)["code"]
        == "list-inconsistent"
    )


def test_a_preview_over_a_list_that_cannot_be_read_shows_all_of_the_new_one(general, tmp_path):
    general.run("imagelist", "publish", "general")
    published = tmp_path / "web" / "general.list"
    published.write_bytes(published.read_bytes().replace(b"General", b"Ganeral"))
    code, shown, notes = general.raw("imagelist", "publish", "general", "--dry-run")
    assert (code, "cannot be read" in notes) == (0, True)
    assert b"from nothing to version 2" in shown
    assert b"Alpha" in shown


def test_a_change_is_shown_by_the_names_that_it_is_asked_for_with(general):
    said = general.run("imagelist", "edit", "general", "--set", "lifetime=14", "--set-json", 'example:tiers=["gold"]')
    assert [each["key"] for each in said["changes"]] == ["lifetime", "example:tiers"]
    assert b'["gold"]' in general.raw("imagelist", "show", "general")[1]


def test_history_gives_the_bytes_as_they_were_signed(general, tmp_path):
    general.run("imagelist", "publish", "general")
    general.run("imagelist", "publish", "general")
    assert [(each["version"], each["state"]) for each in general.run("imagelist", "history", "general")] == [
        ("2", "published"),
        ("1", "published"),
    ]
    assert general.run("imagelist", "history", "general", "--show", "1")["images"][0]["appliance"] == "alpha"
    code, out, _ = general.raw("imagelist", "history", "general", "--raw", "2")
    assert code == 0
    assert out == (tmp_path / "web/general.list").read_bytes()
    assert general.run("imagelist", "history", "general", "--raw", "3", code=12)["code"] == "not-found"
    assert general.run("imagelist", "history", "absent", code=12)["code"] == "not-found"


def test_a_published_list_is_deleted_by_force_and_what_follows_is_said(general):
    general.run("imagelist", "publish", "general")
    assert general.run("imagelist", "delete", "general", code=12)["code"] == "state-invalid"
    dry = general.run("imagelist", "delete", "general", "--force", "--dry-run")
    assert (dry["deleted"], dry["published"]["version"]) == (None, "1")
    general.run("imagelist", "delete", "general", "--force")
    assert any("they keep its images until then" in message for message in general.messages)
    assert general.run("imagelist", "list") == []
    assert len(general.run("imagelist", "history", "general")) == 1


def test_a_list_is_taken_over_after_it_was_verified(general, tmp_path):
    general.run("imagelist", "publish", "general")
    file = tmp_path / "old.list"
    file.write_bytes((tmp_path / "web/general.list").read_bytes())
    general.run("imagelist", "delete", "general", "--force")
    arguments = ("--name", "general", "--endorser", "joe", "--publisher", "web", "--anchors", tmp_path / "anchors")
    assert general.run("imagelist", "import", file, *arguments, code=5)["code"] == "signer-not-pinned"
    signed_by = ("--endorser-certificate", tmp_path / "keys/jane.pem")
    taken = general.run("imagelist", "import", file, *arguments, *signed_by)
    assert (taken["last_version"], taken["created"]) == ("1", True)
    assert any("refuse that" in message for message in general.messages)
    assert general.run("imagelist", "publish", "general")["version"] == "2"


def test_an_appliance_is_described_anew(general):
    said = general.run(
        "appliance", "edit", "alpha", "--set", "groups=a, b", "--set", "ad:appid=7", "--set", "sl:osversion=13"
    )
    assert {change["key"]: change["now"] for change in said["changes"]} == {
        "groups": ["a", "b"],
        "ad:appid": "7",
        "os_version": "13",
    }
    shown = general.run("appliance", "show", "alpha")
    assert (shown["groups"], shown["keys"], shown["lists"]) == (["a", "b"], {"ad:appid": "7"}, ["general"])
    general.run("appliance", "edit", "alpha", "--unset", "groups")
    assert general.run("appliance", "show", "alpha")["groups"] == []


_BAD_DESCRIPTIONS = [
    ("--set", "title="),
    ("--set", "minimum_cores=0"),
    ("--set", "minimum_cores=٣"),
    ("--set", "minimum_cores=4", "--set", "recommended_cores=2"),
    ("--set", "mpuri=no address"),
    ("--set", "hv:size=5"),
    ("--set", "dc:date:expires=2027-01-01"),
    ("--set", "unknown=5"),
    ("--unset", "hypervisor"),
    ("--unset", "ad:appid"),
]


def test_an_appliance_that_would_contradict_itself_stays_as_it_is(general):
    before = general.run("appliance", "show", "alpha")
    for arguments in _BAD_DESCRIPTIONS:
        assert general.run("appliance", "edit", "alpha", *arguments, code=3)["code"] == "list-inconsistent"
        assert general.run("appliance", "show", "alpha") == before


def test_an_appliance_is_discontinued_and_continued(general):
    general.add("beta", seed=3)
    day = (datetime.now(UTC) + timedelta(days=3)).date()
    ends = f"{day}T23:59:59Z"
    dry = general.run("appliance", "discontinue", "alpha", "--on", day, "--successor", "beta", "--dry-run")
    assert (dry["discontinued_on"], dry["ends"]) == (ends, {"1": ends})
    assert general.run("appliance", "show", "alpha")["discontinued_on"] is None
    general.run("appliance", "discontinue", "alpha", "--on", day, "--successor", "beta")
    assert general.run("appliance", "discontinue", "beta", "--on", day, "--successor", "alpha", code=3)["code"] == (
        "list-inconsistent"
    )
    assert general.run("appliance", "discontinue", "beta", "--on", "2020-01-01", code=3)["code"] == "input-invalid"
    assert general.run("appliance", "discontinue", "beta", "--on", "soon", code=2)["code"] == "usage"
    assert general.run("imagelist", "publish", "general")["version"] == "1"
    assert general.run("appliance", "continue", "alpha")["discontinued_on"] is None
    assert general.run("appliance", "continue", "alpha", code=12)["code"] == "state-invalid"


def test_a_version_has_an_end_and_can_be_deleted(general):
    general.add("alpha", "2", seed=2)
    assert general.run("appliance", "version", "edit", "alpha", "2", "--expires", "2030-01-01")["expires"] == (
        "2030-01-01T23:59:59Z"
    )
    assert general.run("appliance", "version", "edit", "alpha", "2", "--no-expiry")["expires"] is None
    assert general.run("appliance", "version", "edit", "alpha", "2", code=2)["code"] == "usage"
    assert general.run("appliance", "version", "delete", "alpha", "2", code=12)["code"] == "state-invalid"
    [file] = general.run("appliance", "version", "delete", "alpha", "1", "--dry-run")["files"]
    assert general.run("appliance", "version", "delete", "alpha", "1")["files"] == [file]
    assert general.run("appliance", "delete", "alpha", code=12)["code"] == "state-invalid"
    general.run("imagelist", "remove", "general", "alpha")
    assert general.run("appliance", "delete", "alpha")["name"] == "alpha"
    assert general.run("appliance", "list") == []


def test_a_set_lives_its_life(general):
    for seed, name in enumerate(("database", "portal"), start=5):
        general.add(name, seed=seed)
    general.run("set", "create", "stack", "--title", "Stack")
    assert general.run("set", "release", "stack", code=3)["code"] == "list-inconsistent"
    general.run("set", "add", "stack", "database", "portal")
    general.run("imagelist", "bind-set", "general", "stack")
    assert general.run("imagelist", "publish", "general", code=3)["code"] == "list-inconsistent"
    assert general.run("set", "release", "stack", "--dry-run")["version"] == "1"
    assert general.run("set", "show", "stack")["releases"] == []
    assert general.run("set", "release", "stack")["version"] == "1"
    assert general.run("set", "release", "stack")["version"] == "1"
    general.add("portal", "2", seed=9)
    assert general.run("set", "release", "stack", "--version", "2.0", "--member", "database=1")["version"] == "2.0"
    assert general.run("set", "rollback", "stack", "--dry-run")["members_of"] == "1"
    made = general.run("set", "rollback", "stack")
    assert (made["version"], made["members_of"]) == ("2.1", "1")
    assert general.run("set", "rollback", "stack", code=12)["code"] == "state-invalid"
    assert general.run("set", "rollback", "stack", "--to", "2.0")["version"] == "2.2"
    assert general.run("set", "expire", "stack", "--on", "2030-01-01")["expires"] == "2030-01-01T23:59:59Z"
    assert general.run("set", "expire", "stack", "--never")["expires"] is None
    assert general.run("imagelist", "publish", "general")["version"] == "1"
    assert general.run("set", "delete", "stack", code=12)["code"] == "state-invalid"
    general.run("imagelist", "unbind-set", "general", "stack")
    general.run("set", "remove", "stack", "portal")
    general.run("set", "delete", "stack")
    assert general.run("set", "list") == []


def test_a_site_follows_a_set_that_is_replaced_and_taken_back_whole(general, tmp_path):
    settings = tmp_path / "coppice.toml"
    text = settings.read_text().replace("https://images.example.org", f"file://{tmp_path}/web")
    cloud = f'[clouds.here]\ndriver = "directory"\nsite = "test"\npath = "{tmp_path}/cloud"\nformats = ["raw"]\n'
    settings.write_text(text + cloud)
    for seed, name in enumerate(("database", "portal"), start=5):
        general.add(name, seed=seed)
    general.run("set", "create", "stack", "--title", "Stack")
    general.run("set", "add", "stack", "database", "portal")
    general.run("set", "release", "stack")
    general.run("imagelist", "bind-set", "general", "stack")
    address = general.run("imagelist", "publish", "general")["uri"]
    trusted = ("--anchors", tmp_path / "anchors", "--endorser-certificate", tmp_path / "keys/jane.pem")
    general.run("subscription", "add", "site", address, *trusted)

    def available():
        general.run("sync")
        titles = {each["identifier"]: each["title"] for each in general.run("appliance", "list")}
        markers = [each["marker"] for each in general.run("cloud", "images")["images"]]
        return {
            (titles[marker["key"]["image_identifier"]], marker["version"])
            for marker in markers
            if marker["state"] == "available"
        }

    first = {("Alpha", "1"), ("Database", "1"), ("Portal", "1")}
    assert available() == first
    for seed, name in enumerate(("database", "portal"), start=7):
        general.add(name, "2", seed=seed)
    general.run("set", "release", "stack")
    general.run("imagelist", "publish", "general")
    assert available() == {("Alpha", "1"), ("Database", "2"), ("Portal", "2")}
    general.run("set", "rollback", "stack")
    general.run("imagelist", "publish", "general")
    assert available() == first
    general.run("set", "release", "stack")
    general.run("imagelist", "publish", "general")
    assert available() == {("Alpha", "1"), ("Database", "2"), ("Portal", "2")}


def test_tables_for_people_are_printed_by_every_command_that_shows(general):
    general.add("beta", seed=3)
    general.run("set", "create", "stack", "--title", "Stack")
    general.run("set", "add", "stack", "beta")
    general.run("set", "release", "stack")
    general.run("imagelist", "bind-set", "general", "stack")
    for command, wanted in (
        (("imagelist", "publish", "general"), b"version 1"),
        (("imagelist", "show", "general"), b"stack 1"),
        (("imagelist", "list"), b"general"),
        (("imagelist", "history", "general"), b"published"),
        (("imagelist", "history", "general", "--show", "1"), b"alpha"),
        (("imagelist", "edit", "general", "--set", "title=X"), b"General"),
        (("appliance", "show", "alpha"), b"carried by"),
        (("appliance", "edit", "alpha", "--set", "groups=a,b"), b"a, b"),
        (("appliance", "discontinue", "alpha", "--on", "2030-01-01"), b"2030-01-01"),
        (("set", "show", "stack"), b"beta 1"),
        (("set", "list"), b"stack"),
    ):
        code, out, _ = general.raw(*command)
        assert code == 0
        assert wanted in out, (command, out)
