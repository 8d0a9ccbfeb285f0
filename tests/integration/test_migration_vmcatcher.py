# SPDX-License-Identifier: Apache-2.0
"""A vmcatcher's subscriptions go on here: whom each trusts, what it wants, and what it has verified."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cli.main import main
from coppice.testing.authority import Authority
from coppice.testing.predecessors import write_vmcatcher
from coppice.testing.server import LoopbackServer, guarded, serve
from coppice.testing.simulator import Simulator
from coppice.testing.tls import server_tls

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
SECRET = "s3cret-pass"  # noqa: S105 - the example's
TOKEN = "t0ken-of-access"  # noqa: S105 - likewise
OAUTH = "x-oauth-basic"
WHEN = "2026-11-20 10:00:00.000000"
URL = "https://vmcaster.example.org/store/vo"
LISTS = {
    "wanted": "11111111-1111-4111-8111-111111111111",
    "open": "22222222-2222-4222-8222-222222222222",
    "none": "33333333-3333-4333-8333-333333333333",
    "orphan": "44444444-4444-4444-8444-444444444444",
    "off": "55555555-5555-4555-8555-555555555555",
}
IMAGES = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(10)]
JANE = ("/DC=org/DC=example/CN=Jane Doe", "/DC=org/DC=example/CN=Example CA")
HOST = ("/DC=org/CN=host/lists.example.org", "/C=NL/O=TERENA/CN=eScience SSL CA")


class Site:
    """A site whose administrator runs the real command line."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.capsys = root, capsys
        self.authority = Authority.create("Example CA")
        self.anchors = self.authority.write_to(root / "anchors")
        (root / "coppice.toml").write_text(f'state_directory = "{root}/state"\n')

    def run(self, *words: object) -> tuple[int, Any]:
        self.capsys.readouterr()
        code = main(["--config", str(self.root / "coppice.toml"), "--json", *map(str, words)])
        said = self.capsys.readouterr().out
        assert SECRET not in said
        assert TOKEN not in said
        return code, json.loads(said)

    def import_from(self, path: Path, *words: object) -> tuple[int, Any]:
        return self.run("subscription", "import-vmcatcher", path, "--anchors", self.anchors, *words)

    def subscriptions(self) -> dict[str, Any]:
        code, said = self.run("subscription", "list")
        assert code == 0, said
        return {each["name"]: each for each in said["data"]["subscriptions"]}


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, capsys)


def subscription(number: int, name: str, **changes: object) -> dict[str, object]:
    return {
        "id": number,
        "identifier": LISTS[name],
        "description": f"the list {name}",
        "uri": f"{URL}/{name}.example.org/image.list",
        "authorised": 1,
        "imagelist_latest": None,
        "updated": WHEN,
        "trustAnchor": 1,
        "userName": None,
        "password": None,
        "updateMode": 0,
        **changes,
    }


def link(number: int, to: int, endorser: int, *, authorised: int = 1) -> dict[str, object]:
    return {"id": number, "subscription": to, "endorser": endorser, "authorised": authorised}


def image(number: int, of: int, *, cache: int) -> dict[str, object]:
    return {"id": number + 1, "identifier": IMAGES[number], "latest": 0, "cache": cache, "subscription": of}


# Endorsers and their names have different numbers: what is joined by the wrong one shows.
ROWS: dict[str, list[dict[str, object]]] = {
    "endorser": [{"id": 1, "identifier": "jane"}, {"id": 2, "identifier": "host"}],
    "endorserPrincible": [
        {"id": 1, "hv_dn": HOST[0], "hv_ca": HOST[1], "endorser": 2},
        {"id": 2, "hv_dn": JANE[0], "hv_ca": JANE[1], "endorser": 1},
    ],
    "subscription": [
        subscription(1, "wanted", userName=TOKEN, password=OAUTH, trustAnchor=2),
        subscription(2, "open", updateMode=3, userName="jane", password=SECRET, trustAnchor=0),
        subscription(3, "none", updateMode=1),
        subscription(4, "orphan"),
        subscription(5, "off", authorised=0, updateMode=3),
    ],
    "subscriptionAuth": [
        link(1, 1, 1),
        link(2, 2, 1),
        link(3, 2, 2),
        link(4, 3, 2),
        link(5, 4, 1, authorised=0),
        link(6, 5, 1),
    ],
    "ImageDefinition": [
        image(0, 1, cache=1),
        image(1, 1, cache=0),
        image(2, 1, cache=3),
        image(3, 2, cache=1),
        image(4, 2, cache=0),
        image(5, 3, cache=0),
    ],
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return write_vmcatcher(tmp_path / "vmcatcher.db", ROWS)


def endorsers(known: Any) -> list[tuple[str, str]]:
    return [(each["dn"], each["ca"]) for each in known["endorsers"]]


def test_every_subscription_comes_in_with_whom_it_trusts_and_what_it_wants(site: Site, database: Path) -> None:
    before = hashlib.sha512(database.read_bytes()).hexdigest()
    code, said = site.import_from(database, "--secrets-directory", site.root / "secrets")
    assert (code, said["status"]) == (1, "partial"), said
    outcomes = {each["identifier"]: each["outcome"] for each in said["data"]["items"]}
    assert outcomes == {
        LISTS["wanted"]: "imported",
        LISTS["open"]: "imported",
        LISTS["none"]: "imported",
        LISTS["orphan"]: "skipped",
        LISTS["off"]: "imported",
    }
    assert [each["message"] for each in said["errors"]] == [
        f"subscription {LISTS['orphan']}: no endorser is linked to it that could be trusted"
    ]
    known = site.subscriptions()
    assert set(known) == {"wanted.example.org", "open.example.org", "none.example.org", "off.example.org"}
    wanted, opened = known["wanted.example.org"], known["open.example.org"]
    assert wanted["uri"] == f"{URL}/wanted.example.org/image.list"
    assert wanted["list_identifier"] == LISTS["wanted"]
    assert endorsers(wanted) == [JANE]
    assert endorsers(opened) == [JANE, HOST]
    assert endorsers(known["none.example.org"]) == [HOST]
    assert wanted["images"] == [IMAGES[0], IMAGES[2]]
    assert (opened["images"], opened["refused"]) == ([], [IMAGES[4]])
    paused = {name for name, each in known.items() if each["paused_at"] is not None}
    assert paused == {"none.example.org", "off.example.org"}
    assert wanted["server_anchors"] == str(site.anchors)
    assert opened["server_anchors"] is None
    assert hashlib.sha512(database.read_bytes()).hexdigest() == before
    assert sorted(path.name for path in database.parent.glob("vmcatcher.db*")) == ["vmcatcher.db"]


def test_passwords_go_into_files_that_their_owner_alone_reads(site: Site, database: Path) -> None:
    secrets = site.root / "secrets"
    site.import_from(database, "--secrets-directory", secrets)
    files = {path.name: path for path in secrets.iterdir()}
    assert {name: path.read_text() for name, path in files.items()} == {
        "wanted.example.org.secret": f"{TOKEN}\n",
        "open.example.org.secret": f"{SECRET}\n",
    }
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files.values())
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    wanted = site.subscriptions()["wanted.example.org"]["access"]
    opened = site.subscriptions()["open.example.org"]["access"]
    assert (wanted["kind"], wanted["username"]) == ("basic", None)
    assert (opened["kind"], opened["username"]) == ("basic", "jane")
    for path in (site.root / "state").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()
            assert TOKEN.encode() not in path.read_bytes()


def test_without_a_place_for_them_passwords_are_not_copied_but_spoken_of(site: Site, database: Path) -> None:
    _, said = site.import_from(database)
    notes = "\n".join(said["messages"])
    assert "coppice subscription edit wanted.example.org --token-file FILE" in notes
    assert "coppice subscription edit open.example.org --username jane --password-file FILE" in notes
    assert all(each["access"] is None for each in site.subscriptions().values())


def test_once_more_changes_nothing(site: Site, database: Path) -> None:
    site.import_from(database, "--secrets-directory", site.root / "secrets")
    site.run("subscription", "edit", "open.example.org", "--refuse-image", IMAGES[7])
    before = site.subscriptions()
    _, said = site.import_from(database, "--secrets-directory", site.root / "secrets")
    assert {each["outcome"] for each in said["data"]["items"]} == {"there", "skipped"}
    assert site.subscriptions() == before


def test_a_dry_run_says_the_same_and_leaves_nothing(site: Site, database: Path) -> None:
    code, said = site.import_from(database, "--secrets-directory", site.root / "secrets", "--dry-run")
    assert code == 1
    assert [each["outcome"] for each in said["data"]["items"]].count("imported") == 4
    assert not (site.root / "state").exists()
    assert not (site.root / "secrets").exists()
    assert site.subscriptions() == {}


@pytest.mark.parametrize("what", ["other content", "open to others"])
def test_a_secret_that_cannot_be_kept_safely_keeps_its_subscription_out(site: Site, database: Path, what: str) -> None:
    secrets = site.root / "secrets"
    secrets.mkdir(mode=0o700)
    if what == "other content":
        (secrets / "open.example.org.secret").write_text("somebody's\n")
    else:
        secrets.chmod(0o777)
    code, said = site.import_from(database, "--secrets-directory", secrets)
    assert code == 1
    skipped = {each["identifier"] for each in said["data"]["items"] if each["outcome"] == "skipped"}
    assert LISTS["open"] in skipped
    assert (LISTS["wanted"] in skipped) is (what == "open to others")
    assert "open.example.org" not in site.subscriptions()
    if what == "other content":
        assert (secrets / "open.example.org.secret").read_text() == "somebody's\n"


def test_a_login_in_the_address_is_taken_out_of_it(site: Site, tmp_path: Path) -> None:
    uri = f"https://jane:{SECRET}@lists.example.org/demo.list"
    rows = {**ROWS, "subscription": [subscription(1, "wanted", uri=uri)]}
    path = write_vmcatcher(tmp_path / "vmcatcher.db", rows)
    _, said = site.import_from(path, "--secrets-directory", tmp_path / "secrets")
    assert [each["name"] for each in said["data"]["items"]] == ["demo"]
    assert site.subscriptions()["demo"]["uri"] == "https://lists.example.org/demo.list"
    assert (tmp_path / "secrets/demo.secret").read_text() == f"{SECRET}\n"


def test_the_list_that_was_verified_last_holds_off_older_ones(site: Site, tmp_path: Path) -> None:
    publisher = Simulator.create(site.authority, uri=(tmp_path / "web/demo.list").as_uri())
    publisher.version = "7"
    publisher.add_image()
    message = publisher.message()
    rows = {
        **ROWS,
        "subscription": [
            subscription(1, "wanted", identifier=publisher.identifier, uri=publisher.uri, imagelist_latest=3)
        ],
        "ImageDefinition": [],
        "imageListInstance": [
            {
                "id": number,
                "data": data,
                "data_hash": hashlib.sha512(data).hexdigest(),
                "sub_auth": 1,
                "imported": WHEN,
                "created": WHEN,
                "expires": WHEN,
                "version": version,
            }
            for number, data, version in ((2, b"older", "6"), (3, message, "7"))
        ],
    }
    rows["subscription"][0]["updateMode"] = 3
    rows["endorserPrincible"] = [
        {"id": 9, "hv_dn": str(publisher.endorser.subject), "hv_ca": str(publisher.endorser.issuer), "endorser": 1}
    ]
    path = write_vmcatcher(tmp_path / "vmcatcher.db", rows)
    code, said = site.import_from(path)
    assert code == 0, said
    assert any("version 7 of its list" in note and "verified and is kept" in note for note in said["messages"]), said
    publisher.version = "6"
    publisher.write_to(tmp_path / "web")
    code, said = site.run("subscription", "refresh")
    assert [each["code"] for each in said["errors"]] == ["list-older"], said
    publisher.version = "8"
    publisher.write_to(tmp_path / "web")
    assert site.run("subscription", "refresh")[0] == 0


def test_what_came_in_is_fetched_with_its_login_below_its_authorities_and_chooses_as_before(
    site: Site, tmp_path: Path
) -> None:
    with (site.root / "coppice.toml").open("a") as settings:
        settings.write("[transfer]\nallow_private_addresses = true\n")
    with LoopbackServer(tls=server_tls(tmp_path, site.authority)) as server:
        publisher = Simulator.create(site.authority, uri=server.url("/demo.list"))
        wanted, refused = publisher.add_image(title="Wanted"), publisher.add_image(title="Refused")
        login = "Basic " + base64.b64encode(f"{TOKEN}:{OAUTH}".encode()).decode()
        server.set("/demo.list", guarded(login, serve(publisher.message())))
        signer = publisher.endorser
        rows = {
            **ROWS,
            "endorserPrincible": [
                {"id": 9, "hv_dn": str(signer.subject), "hv_ca": str(signer.issuer), "endorser": 1},
            ],
            "subscription": [
                subscription(
                    1,
                    "wanted",
                    identifier=publisher.identifier,
                    uri=publisher.uri,
                    trustAnchor=2,
                    userName=TOKEN,
                    password=OAUTH,
                )
            ],
            "ImageDefinition": [
                {**image(0, 1, cache=1), "identifier": wanted["dc:identifier"]},
                {**image(1, 1, cache=0), "identifier": refused["dc:identifier"]},
            ],
        }
        path = write_vmcatcher(tmp_path / "vmcatcher.db", rows)
        assert site.import_from(path, "--secrets-directory", tmp_path / "secrets")[0] == 0
        code, said = site.run("subscription", "refresh")
        assert code == 0, said
        assert [request.headers["Authorization"] for request in server.requests] == [login]
        code, said = site.run("image", "list")
        assert code == 0, said
        assert [each["image"]["title"] for each in said["data"]["images"]] == ["Wanted"]


def test_a_last_list_that_is_not_believed_is_said(site: Site, tmp_path: Path) -> None:
    rows = {
        **ROWS,
        "subscription": [subscription(1, "wanted", imagelist_latest=3)],
        "imageListInstance": [
            {"id": 3, "data": b"unsigned", "data_hash": "", "imported": WHEN, "created": WHEN, "expires": WHEN}
            | {"version": "7"}
        ],
    }
    code, said = site.import_from(write_vmcatcher(tmp_path / "vmcatcher.db", rows))
    assert code == 0
    assert any("[list-unsigned]" in note for note in said["messages"])


def test_an_older_vmcatchers_database_is_read_as_well(site: Site, tmp_path: Path) -> None:
    path = write_vmcatcher(tmp_path / "vmcatcher.db", ROWS)
    with closing(sqlite3.connect(path)) as opened, opened:
        for column in ("updateMode", "trustAnchor", "userName", "password"):
            opened.execute(f'ALTER TABLE subscription DROP COLUMN "{column}"')
    _, said = site.import_from(path)
    assert [each["outcome"] for each in said["data"]["items"]].count("imported") == 4
    assert site.subscriptions()["open.example.org"]["access"] is None


def spoil(path: Path, how: str) -> None:
    if how == "no such file":
        path.unlink()
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "another format":
        path.write_bytes(b"PK\x03\x04" + b"\0" * 4096)
    elif how == "cut off":
        path.write_bytes(path.read_bytes()[:6000])
    elif how == "overwritten":
        data = bytearray(path.read_bytes())
        data[4096:] = b"\xff" * (len(data) - 4096)
        path.write_bytes(bytes(data))
    else:
        with closing(sqlite3.connect(path)) as opened, opened:
            opened.executescript(how)


# A table that is a view, and never ends.
ENDLESS = """
DROP TABLE subscription;
CREATE VIEW subscription AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)
    SELECT id, id AS identifier, id AS description, id AS uri, 1 AS authorised, 1 AS imagelist_latest FROM n;
"""


@pytest.mark.parametrize(
    "how",
    [
        "no such file",
        "a folder",
        "empty",
        "another format",
        "cut off",
        "overwritten",
        'DROP TABLE "subscriptionAuth"',
        "ALTER TABLE subscription RENAME COLUMN uri TO address",
        ENDLESS,
        "UPDATE subscription SET uri = CAST(x'ff' AS TEXT) || uri",
    ],
)
def test_what_is_no_vmcatcher_database_is_refused(site: Site, database: Path, how: str) -> None:
    spoil(database, how)
    code, said = site.import_from(database)
    assert (code, [each["code"] for each in said["errors"]]) == (3, ["file-unreadable"]), said
    assert str(database) in said["errors"][0]["message"]
    assert site.subscriptions() == {}


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"uri": "gopher://lists.example.org/x"}, "skipped"),
        ({"uri": "http://[::1/x"}, "skipped"),
        ({"uri": ""}, "skipped"),
        ({"identifier": "not a UUID"}, "skipped"),
        ({"description": "\x1b[31m" + "x" * 10_000}, "imported"),
        ({"uri": "https://lists.example.org/" + "a" * 200 + "/../%00.list"}, "imported"),
        ({"password": "two\nlines", "userName": "jane"}, "skipped"),
        ({"updateMode": "many"}, "imported"),
    ],
)
def test_odd_values_are_skipped_or_tamed_and_the_rest_comes_in(
    site: Site, tmp_path: Path, changes: dict[str, object], outcome: str
) -> None:
    rows = {**ROWS, "subscription": [subscription(1, "wanted", **changes), subscription(2, "open")]}
    path = write_vmcatcher(tmp_path / "vmcatcher.db", rows)
    _, said = site.import_from(path, "--secrets-directory", tmp_path / "secrets")
    first, second = said["data"]["items"]
    assert (first["outcome"], second["outcome"]) == (outcome, "imported"), said


def test_trust_anchors_are_needed(site: Site, database: Path, tmp_path: Path) -> None:
    code, said = site.run("subscription", "import-vmcatcher", database, "--anchors", tmp_path / "none")
    assert (code, said["errors"][0]["code"]) == (5, "trust-anchor")
    assert site.subscriptions() == {}
