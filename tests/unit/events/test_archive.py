# SPDX-License-Identifier: Apache-2.0
"""Archived events: their names, their true order, and what is refused."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from coppice.clock import FixedClock
from coppice.database import Database
from coppice.errors import InputError
from coppice.events.archive import KEYS, archive_event, archived_names, label_of
from coppice.events.journal import Journal
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.workflows.import_events import EventImport, import_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit
NOW = 1_794_000_000
IMAGE = "8a1f3c9e-0b52-4c58-9a53-0d7c1d1f6c11"


def variables(event_type: str, image: str | None = IMAGE, **more: str) -> dict[str, str]:
    found = {"VMCATCHER_EVENT_TYPE": event_type, "PATH": "/bin", "VMCATCHER_EVENT_UUID_SESSION": "s"} | more
    return found | ({"VMCATCHER_EVENT_DC_IDENTIFIER": image} if image is not None else {})


class Inbox:
    """A directory of archived events, and the journal that they go into."""

    def __init__(self, path: Path) -> None:
        self.path = path / "events"
        self.path.mkdir()
        file = path / "coppice.toml"
        file.write_text(f'state_directory = "{path}/state"\n')
        self.settings = load_settings(config=file, environ={}, options={}, system_file=file)
        self.database = Database(self.settings.database_url)
        self.clock = FixedClock(datetime.fromtimestamp(NOW + 1000, UTC))

    def put(self, name: str, content: object) -> Path:
        path = self.path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    def event(self, seconds: int, event_type: str, image: str = IMAGE) -> Path:
        said = {"VMCATCHER_EVENT_TYPE": event_type, "VMCATCHER_EVENT_DC_IDENTIFIER": image}
        return self.put(f"{seconds}_{event_type}_{image}.json", said)

    def take(self, **options: bool) -> EventImport:
        return import_events(
            self.path,
            settings=self.settings,
            database=self.database,
            clock=self.clock,
            monitor=SILENT,
            **options,
        )

    def kinds(self) -> list[str]:
        return [str(each.kind) for each in Journal(self.database).events()]

    def left(self) -> list[str]:
        return sorted(str(each.relative_to(self.path)) for each in self.path.rglob("*") if not each.is_dir())


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    inbox = Inbox(tmp_path)
    yield inbox
    inbox.database.close()


def test_an_archived_event_has_the_name_the_keys_and_the_rights_that_its_readers_expect(tmp_path: Path) -> None:
    path = archive_event(tmp_path, variables("AvailablePostfix", VMCATCHER_EVENT_VO="vo"), seconds=NOW, mode=0o660)
    assert path.name == f"{NOW}_AvailablePostfix_{IMAGE}.json"
    document = json.loads(path.read_text())
    assert tuple(document) == KEYS
    assert len(KEYS) == 18
    assert document["VMCATCHER_EVENT_VO"] == "vo"
    assert document["VMCATCHER_EVENT_AD_MPURI"] is None
    assert path.stat().st_mode & 0o777 == 0o660
    assert path.read_text().startswith('{\n  "')
    assert (
        archive_event(tmp_path, variables("ProcessPrefix", None), seconds=NOW).name == f"{NOW}_ProcessPrefix_NoID.json"
    )


def test_events_of_one_second_are_never_written_over_and_keep_their_order(tmp_path: Path) -> None:
    told = ["AvailablePostfix", "ExpirePostfix", "AvailablePostfix", "AvailablePostfix", "ExpirePrefix"]
    written = [archive_event(tmp_path, variables(each), seconds=NOW).name for each in told]
    names, others = archived_names(tmp_path)
    assert [each.file_name for each in names] == written
    assert [each.type for each in names] == told
    assert others == ()
    # A clock that was set back does not change what came first.
    later = archive_event(tmp_path, variables("ExpirePostfix"), seconds=NOW - 500).name
    assert archived_names(tmp_path)[0][-1].file_name == later
    # Another image has nothing to do with it.
    assert archive_event(tmp_path, variables("ExpirePostfix", "x"), seconds=NOW).name == f"{NOW}_ExpirePostfix_x.json"


@pytest.mark.threat("T78")
@pytest.mark.parametrize("identifier", ["../../etc/passwd", "/etc/x", ".", "a b", "é", "x" * 400, "a\nb", "\udcff"])
def test_an_identifier_that_is_no_part_of_a_name_gets_a_harmless_one(tmp_path: Path, identifier: str) -> None:
    path = archive_event(tmp_path, variables("ExpirePostfix", identifier), seconds=NOW)
    assert path.parent == tmp_path
    ((name,), others) = archived_names(tmp_path)
    assert (name.file_name, others) == (path.name, ())
    assert label_of(identifier) != label_of(f"{identifier}x")
    json.loads(path.read_text()).keys()


@pytest.mark.parametrize("event_type", ["", "../x", "a_b", "x" * 65, "Ä"])
def test_what_is_no_event_is_not_archived(tmp_path: Path, event_type: str) -> None:
    with pytest.raises(InputError, match="tells of no event"):
        archive_event(tmp_path, {"VMCATCHER_EVENT_TYPE": event_type}, seconds=NOW)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_read_in_its_true_order(inbox: Inbox) -> None:
    other = "11111111-0b52-4c58-9a53-0d7c1d1f6c11"
    for each in ("AvailablePostfix", "AvailablePrefix", "ExpirePostfix", "ExpirePrefix"):
        inbox.event(NOW, each)
    inbox.event(NOW, "AvailablePostfix", other)
    inbox.event(NOW, "ExpirePostfix", other)
    inbox.event(NOW - 100, "AvailablePostfix")
    inbox.put(f"{NOW}_ProcessPrefix_NoID.json", {"VMCATCHER_EVENT_TYPE": "ProcessPrefix"})
    inbox.put(f"{NOW}_ProcessPostfix_NoID.json", {"VMCATCHER_EVENT_TYPE": "ProcessPostfix"})
    done = inbox.take()
    assert (len(done.imported), done.rejected, inbox.left()) == (9, (), [])
    kinds = inbox.kinds()
    assert kinds[0] == "ImageCached"
    assert kinds[1] == "CacheRunBegun"
    assert kinds[-1] == "CacheRunEnded"
    mine = [each for each in Journal(inbox.database).events() if each.image_identifier == IMAGE]
    assert [str(each.kind) for each in mine] == [
        "ImageCached",
        "ImageUncaching",
        "ImageUncached",
        "ImageCaching",
        "ImageCached",
    ]
    assert mine[0].at == datetime.fromtimestamp(NOW - 100, UTC)


def test_poison_is_moved_aside_and_all_else_goes_on(inbox: Inbox) -> None:
    good = inbox.event(NOW + 9, "AvailablePostfix").name
    wrong = {
        f"{NOW}_AvailablePostfix_a.json": b"{not json",
        f"{NOW}_AvailablePostfix_b.json": b"[1]",
        f"{NOW}_AvailablePostfix_c.json": {"VMCATCHER_EVENT_TYPE": "ExpirePostfix"},
        f"{NOW}_AvailablePostfix_d.json": {"VMCATCHER_EVENT_DC_IDENTIFIER": "e"},
        f"{NOW}_AvailablePostfix_f.json": b'{"a": "' + b"x" * 300_000 + b'"}',
        f"{NOW}_AvailablePostfix_g.json": {"VMCATCHER_EVENT_HV_SIZE": 4},
        f"{NOW}_AvailablePostfix_h.json": b'{"a": "1", "a": "2"}',
        f"{NOW}_AvailablePostfix_i.json": b"[" * 100_000,
        f"{NOW}_AvailablePostfix_j.json": b"\xff\xfe",
        f"{NOW}_Nonsense_NoID.json": {"VMCATCHER_EVENT_TYPE": "Nonsense"},
    }
    for name, content in wrong.items():
        inbox.put(name, content)
    secret = inbox.path.parent / "secret.json"
    secret.write_text('{"VMCATCHER_EVENT_DC_IDENTIFIER": "k"}')
    (inbox.path / f"{NOW}_AvailablePostfix_k.json").symlink_to(secret)
    os.mkfifo(inbox.path / f"{NOW}_AvailablePostfix_l.json")
    for name in ("README", f"{NOW}_AvailablePostfix_a b.json", f"{NOW}x_AvailablePostfix_a.json", ".hidden"):
        inbox.put(name, b"")
    before = inbox.left()
    assert len(inbox.take(dry_run=True).rejected) == len(wrong) + 2
    assert inbox.left() == before
    done = inbox.take()
    assert done.imported == (good,)
    assert len(done.rejected) == len(wrong) + 2
    assert all(name in problem.message for name, problem in done.rejected)
    assert set(done.others) == {"README", f"{NOW}_AvailablePostfix_a b.json", f"{NOW}x_AvailablePostfix_a.json"}
    rejected = {f"rejected/{name}" for name, _ in done.rejected}
    assert set(inbox.left()) == rejected | set(done.others) | {".hidden"}
    assert inbox.kinds() == ["ImageCached"]
    assert secret.exists()
    # The same once more: nothing in `rejected` is written over.
    inbox.put(f"{NOW}_AvailablePostfix_a.json", b"again")
    inbox.take()
    assert (inbox.path / "rejected" / f"{NOW}_AvailablePostfix_a.json").read_bytes() == b"{not json"
    assert (inbox.path / "rejected" / f"{NOW}_AvailablePostfix_a.json.1").read_bytes() == b"again"


def test_what_was_imported_can_be_kept(inbox: Inbox) -> None:
    name = inbox.event(NOW, "AvailablePostfix").name
    inbox.take(keep=True)
    assert inbox.left() == [f"imported/{name}"]


@pytest.mark.threat("T79")
def test_a_run_that_is_killed_before_it_puts_a_file_away_imports_nothing_twice(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = inbox.event(NOW, "AvailablePostfix")
    content = path.read_bytes()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(path), "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            inbox.take()
    assert (inbox.kinds(), inbox.left()) == (["ImageCached"], [path.name])
    done = inbox.take()
    assert (done.imported, done.known, inbox.left()) == ((), (path.name,), [])
    assert inbox.kinds() == ["ImageCached"]
    # The same event may come once more, later.
    path.write_bytes(content)
    assert inbox.take().imported == (path.name,)
    assert inbox.kinds() == ["ImageCached", "ImageCached"]


def test_a_time_that_is_to_come_counts_as_now(inbox: Inbox) -> None:
    inbox.event(99_999_999_999, "AvailablePostfix")
    inbox.take()
    assert Journal(inbox.database).events()[0].at == inbox.clock.now()
