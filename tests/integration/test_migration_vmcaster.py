# SPDX-License-Identifier: Apache-2.0
"""What a vmcaster published goes on from here: lists, images, versions and keys as they were."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cli.main import main
from coppice.formats.cms import open_message
from coppice.testing import consumers
from coppice.testing.authority import Authority
from coppice.testing.predecessors import write_vmcaster

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.integration
URL = "https://lists.example.org/vo"
GENERAL, OTHER, EMPTY = (f"{digit * 8}-1111-4111-8111-111111111111" for digit in "123")
DEBIAN, ROCKY, BROKEN, LOST = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "abcd")
IMAGE_KEYS = {
    "dc:title": "Debian 12",
    "dc:description": "minimal",
    "hv:size": "734003200",
    "hv:format": "qcow2",
    "hv:hypervisor": "KVM",
    "hv:uri": "https://images.example.org/debian.qcow2",
    "hv:version": "1.0.4",
    "hv:ram_minimum": "512",
    "sl:arch": "x86_64",
    "sl:checksum:sha512": "ab" * 64,
    "sl:comments": "",
    "sl:os": "Linux",
    "sl:osname": "Debian",
    "sl:osversion": "12",
    "ad:mpuri": "https://mp.example.org/image/1:77/",
    "ad:base_mpuri": "https://mp.example.org/image/1/",
    "ad:appid": "77",
    "ad:user:fullname": "Jane Doe",
    "example:tier": "gold",
}
LIST_KEYS = {
    "dc:title": "General images",
    "dc:description": "All of them",
    "dc:source": "https://lists.example.org/",
    "dc:date:created": "2026-11-01T10:00:00Z",
    "dc:date:expires": "2026-12-11T10:00:00Z",
    "hv:version": "0.0.7",
    "hv:uri": f"{URL}/general.list",
    "ad:vo": "vo.example.org",
    "ad:swid": "1234",
    "example:contact": "ops@example.org",
}


class Publisher:
    """A publisher whose administrator runs the real command line."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.capsys = root, capsys
        self.authority = Authority.create("Example CA")
        (root / "coppice.toml").write_text(
            f'state_directory = "{root}/state"\n'
            f'[publishers.web]\ndriver = "directory"\npath = "{root}/web"\nurl = "{URL}"\n'
        )
        self.jane = self.authority.issue("Jane Doe")
        certificate, key = self.jane.write_to(root, "jane")
        options = ("--certificate", certificate, "--key", key, "--email", "jane@example.org")
        assert self.run("endorser", "add", "jane", *options)[0] == 0

    def run(self, *words: object) -> tuple[int, Any]:
        self.capsys.readouterr()
        code = main(["--config", str(self.root / "coppice.toml"), "--json", *map(str, words)])
        return code, json.loads(self.capsys.readouterr().out)

    def import_from(self, path: Path, *words: object) -> tuple[int, Any]:
        return self.run("imagelist", "import-vmcaster", path, "--publisher", "web", *words)

    def published(self, name: str) -> dict[str, Any]:
        content = json.loads(open_message((self.root / "web" / f"{name}.list").read_bytes()).payload)
        found: dict[str, Any] = content["hv:imagelist"]
        return found


@pytest.fixture
def publisher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Publisher:
    return Publisher(tmp_path, capsys)


def keyed(table: str, column: str, owners: Mapping[int, Mapping[str, str]]) -> dict[str, list[dict[str, object]]]:
    rows = [(owner, key, value) for owner, keys in owners.items() for key, value in keys.items()]
    return {
        table: [
            {"id": number, column: owner, "key": key, "value": value}
            for number, (owner, key, value) in enumerate(rows, 1)
        ]
    }


def rows(publisher: Publisher, **changes: Any) -> dict[str, list[dict[str, object]]]:
    jane = publisher.jane
    found: dict[str, list[dict[str, object]]] = {
        "endorser": [{"id": 5, "subject": str(jane.subject)}, {"id": 6, "subject": "/DC=org/CN=Gone"}],
        "imagelist": [
            {"id": 2, "identifier": GENERAL},
            {"id": 3, "identifier": OTHER},
            {"id": 4, "identifier": EMPTY},
        ],
        "Image": [
            {"id": 7, "identifier": DEBIAN},
            {"id": 8, "identifier": ROCKY},
            {"id": 9, "identifier": BROKEN},
            {"id": 10, "identifier": LOST},
        ],
        "Endorsement": [
            {"id": 1, "fkImageList": 2, "fkEndorser": 6},
            {"id": 2, "fkImageList": 2, "fkEndorser": 5},
            {"id": 3, "fkImageList": 3, "fkEndorser": 5},
            {"id": 4, "fkImageList": 4, "fkEndorser": 6},
        ],
        "ImageListImage": [
            {"id": 1, "fkImageList": 2, "fkImage": 7},
            {"id": 2, "fkImageList": 2, "fkImage": 8},
            {"id": 3, "fkImageList": 2, "fkImage": 9},
            {"id": 4, "fkImageList": 3, "fkImage": 7},
        ],
        **keyed(
            "endorserMetadata",
            "fkEndorser",
            {
                5: {"hv:ca": str(jane.issuer), "hv:email": "jane@example.org", "dc:creator": "Jane Doe"},
                6: {"hv:ca": str(jane.issuer)},
            },
        ),
        **keyed("ImagelistMetadata", "fkImageList", {2: LIST_KEYS, 3: {"dc:title": "Other one"}, 4: LIST_KEYS}),
        **keyed(
            "ImageMetadata",
            "fkImage",
            {
                7: IMAGE_KEYS,
                8: {**IMAGE_KEYS, "dc:title": "Rocky 9", "sl:osname": "Rocky"},
                9: {**IMAGE_KEYS, "hv:size": "many"},
            },
        ),
    }
    return {**found, **changes}


@pytest.fixture
def database(publisher: Publisher, tmp_path: Path) -> Path:
    return write_vmcaster(tmp_path / "vmcaster.db", rows(publisher))


def outcomes(said: Any) -> dict[tuple[str, str], str]:
    return {(each["kind"], each["identifier"]): each["outcome"] for each in said["data"]["items"]}


def test_lists_come_in_with_identifiers_versions_images_and_keys(publisher: Publisher, database: Path) -> None:
    before = database.read_bytes()
    code, said = publisher.import_from(database)
    assert (code, said["status"]) == (1, "partial"), said
    assert outcomes(said) == {
        ("endorser", str(publisher.jane.subject)): "there",
        ("endorser", "/DC=org/CN=Gone"): "skipped",
        ("image list", GENERAL): "imported",
        ("image", DEBIAN): "imported",
        ("image", ROCKY): "imported",
        ("image", BROKEN): "skipped",
        ("image list", OTHER): "imported",
        ("image list", EMPTY): "skipped",
        ("image", LOST): "skipped",
    }
    assert all(each["reason"] for each in said["data"]["items"] if each["outcome"] == "skipped")
    assert len(said["errors"]) == 4
    assert database.read_bytes() == before
    code, said = publisher.run("imagelist", "publish", "general")
    assert code == 0, said
    content = publisher.published("general")
    assert (content["dc:identifier"], content["hv:version"]) == (GENERAL, "0.0.8")
    assert {key: content[key] for key in ("dc:title", "dc:description", "dc:source", "ad:vo", "ad:swid")} == {
        key: LIST_KEYS[key] for key in ("dc:title", "dc:description", "dc:source", "ad:vo", "ad:swid")
    }
    assert content["example:contact"] == "ops@example.org"
    assert content["hv:uri"] == LIST_KEYS["hv:uri"]
    lifetime = datetime.fromisoformat(content["dc:date:expires"]) - datetime.fromisoformat(content["dc:date:created"])
    assert lifetime.days == 40
    images = {entry["hv:image"]["dc:identifier"]: entry["hv:image"] for entry in content["hv:images"]}
    assert set(images) == {DEBIAN, ROCKY}
    for key, value in IMAGE_KEYS.items():
        assert str(images[DEBIAN][key]) == value, key
    assert images[ROCKY]["dc:title"] == "Rocky 9"


def test_its_subscribers_go_on_by_vmcatchers_rules(publisher: Publisher, database: Path) -> None:
    publisher.import_from(database)
    assert publisher.run("imagelist", "publish", "general")[0] == 0
    opened = open_message((publisher.root / "web/general.list").read_bytes())
    names = (str(publisher.jane.subject), str(publisher.jane.issuer))
    known = consumers.KnownList(identifier=GENERAL, uri=LIST_KEYS["hv:uri"], endorser=names, version="0.0.7")
    assert opened.signer_certificate == publisher.jane.certificate
    assert (
        consumers.vmcatcher_complaints(
            opened.payload, subject=names[0], issuer=names[1], known=known, now=datetime.now(UTC)
        )
        == []
    )


def test_what_changes_for_subscribers_is_said(publisher: Publisher, database: Path) -> None:
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("UPDATE ImagelistMetadata SET value = 'https://old.example.org/x/general' WHERE key = 'hv:uri'")
        opened.execute(
            "INSERT INTO ImageMetadata (id, fkImage, key, value) VALUES (999, 7, 'dc:description', 'another')"
        )
        opened.execute("DELETE FROM ImagelistMetadata WHERE key IN ('hv:version', 'ad:vo')")
    certificate, key = publisher.authority.issue("Joe").write_to(publisher.root, "joe")
    options = ("--certificate", certificate, "--key", key, "--email", "joe@example.org")
    assert publisher.run("endorser", "add", "joe", *options)[0] == 0
    _, said = publisher.import_from(database, "--endorser", "joe")
    notes = "\n".join(said["messages"])
    assert f"from https://old.example.org/x/general; from now on it is at {URL}/general.list" in notes
    assert "joe signs it from now on, whom vmcaster did not bind" in notes
    assert "two values of dc:description" in notes
    assert "no version of it that was published" in notes
    assert "it names no VO" in notes
    code, shown = publisher.run("imagelist", "show", "general")
    assert code == 0
    assert shown["data"]["endorser"] == "joe"


def test_once_more_changes_nothing_and_a_dry_run_neither(publisher: Publisher, database: Path) -> None:
    code, said = publisher.import_from(database, "--dry-run")
    assert code == 1
    assert outcomes(said)["image list", GENERAL] == "imported"
    assert publisher.run("imagelist", "list")[1]["data"] == []
    publisher.import_from(database)
    before = publisher.run("imagelist", "list")[1]["data"]
    assert len(before) == 2
    _, said = publisher.import_from(database)
    assert outcomes(said)["image list", GENERAL] == outcomes(said)["image list", OTHER] == "there"
    assert publisher.run("imagelist", "list")[1]["data"] == before


def test_a_missing_endorser_can_be_added_and_the_rest_imported_then(publisher: Publisher, database: Path) -> None:
    publisher.import_from(database)
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("UPDATE endorser SET subject = subject || ' indeed' WHERE id = 5")
        opened.execute("UPDATE endorser SET subject = ? WHERE id = 6", (str(publisher.jane.subject),))
    _, said = publisher.import_from(database)
    assert outcomes(said)["image list", EMPTY] == "imported"


def test_a_publisher_and_endorsers_that_are_not_there_are_told(publisher: Publisher, database: Path) -> None:
    code, said = publisher.run("imagelist", "import-vmcaster", database, "--publisher", "none")
    assert (code, said["errors"][0]["code"]) == (3, "settings-invalid")
    code, said = publisher.import_from(database, "--endorser", "nobody")
    assert (code, said["errors"][0]["code"]) == (12, "not-found")


@pytest.mark.parametrize(
    "spoil",
    [
        'DROP TABLE "ImageListImage"',
        "ALTER TABLE imagelist RENAME COLUMN identifier TO uuid",
        "UPDATE ImageMetadata SET value = CAST(x'ff' AS TEXT)",
    ],
)
def test_what_is_no_vmcaster_database_is_refused(publisher: Publisher, database: Path, spoil: str) -> None:
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.executescript(spoil)
    code, said = publisher.import_from(database)
    assert (code, [each["code"] for each in said["errors"]]) == (3, ["file-unreadable"]), said
    assert publisher.run("imagelist", "list")[1]["data"] == []


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE imagelist SET identifier = 'none' WHERE id = 2", "is no UUID"),
        ("UPDATE Image SET identifier = 'none' WHERE id = 8", "is no UUID"),
        ("UPDATE ImageMetadata SET value = 'none' WHERE key = 'sl:checksum:sha512' AND fkImage = 8", "sha512"),
        ("DELETE FROM ImageMetadata WHERE key = 'hv:uri' AND fkImage = 8", "hv:uri"),
    ],
)
def test_what_cannot_be_listed_is_skipped_with_its_reason(
    publisher: Publisher, database: Path, statement: str, reason: str
) -> None:
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute(statement)
    code, said = publisher.import_from(database)
    assert code == 1
    assert any(reason in error["message"] + str(error["details"]) for error in said["errors"]), said["errors"]
    assert outcomes(said)["image list", OTHER] == "imported"
