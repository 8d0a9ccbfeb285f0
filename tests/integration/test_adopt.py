# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cli.main import main
from coppice.clock import SystemClock
from coppice.cloud import clouds
from coppice.cloud.memory import MemoryCloud
from coppice.conversion.keep import Made, place_of, write_made
from coppice.conversion.model import Detection, Inspection
from coppice.database import Database
from coppice.errors import CloudUnreachableError
from coppice.events.journal import Journal
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.populations import POPULATIONS, keep_in_memory
from coppice.testing.simulator import Simulator
from coppice.workflows.adopt import adopt
from coppice.workflows.cloud_lock import cloud_lock
from coppice.workflows.listed import recall_lists
from coppice.workflows.obtain import conversion_directory
from coppice.workflows.select import select
from coppice.workflows.tidy import tidy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.cloud.model import DesiredImage
    from coppice.settings.model import Settings

pytestmark = pytest.mark.integration
NAMES = sorted(POPULATIONS)
SETTINGS = """
[clouds.main]
driver = "memory"
site = "test-site"
only_vos = ["vo.example.org"]
image_name = "{title} {version}"
"""


class Site:
    """A site that follows a list of one image for each program before Coppice, and a cloud with what they left."""

    def __init__(self, path: Path, run: Callable[..., tuple[int, dict[str, Any]]]) -> None:
        self.path, self.run = path, run
        self.cloud = MemoryCloud("main", "test-site")
        self.config = path / "site.toml"
        self.config.write_text(SETTINGS)
        authority = Authority.create("Example CA")
        self.publisher = Simulator.create(authority, uri=f"file://{path}/www/demo.list")
        self.publisher.extra["ad:vo"] = "vo.example.org"
        for name in NAMES:
            self.publisher.add_image(
                title=f"Image of {name}", data=self.content(name), **{"ad:mpuri": f"https://mp.example.org/{name}/"}
            )
        self.publisher.write_to(path / "www")
        anchors = authority.write_to(path / "anchors")
        self.database = Database(self.settings.database_url)
        SubscriptionStore(self.database).add(self.publisher.subscription(anchors))
        assert run("subscription", "refresh")[0] == 0

    @property
    def settings(self) -> Settings:
        return load_settings(
            config=self.config,
            environ={"HOME": str(self.path), "COPPICE_STATE_DIRECTORY": str(self.path / "state")},
            options={},
            system_file=self.path / "none",
        )

    @staticmethod
    def content(name: str) -> bytes:
        return f"the bytes of {name}".encode() * 100

    def wanted(self) -> dict[str, DesiredImage]:
        outcomes = recall_lists(SubscriptionStore(self.database), SystemClock(), DEFAULT_LIMITS)
        images = select(outcomes, ()).lists[0].images
        return {each.listed.title.removeprefix("Image of "): each for each in images}

    def populate(self, *, tells_checksum: bool = True) -> None:
        for name, image in self.wanted().items():
            prepared = POPULATIONS[name](image, self.content(name))
            keep_in_memory(self.cloud, prepared, f"old-{name}", tells_checksum=tells_checksum)

    def kinds(self) -> list[str]:
        kinds = [str(each.kind) for each in Journal(self.database).events()]
        return [each for each in kinds if not each.startswith(("ImageList", "ImageNew", "Subscription"))]


def unreachable() -> None:
    raise CloudUnreachableError("the cloud is away")


@pytest.fixture
def site(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COPPICE_STATE_DIRECTORY", str(tmp_path / "state"))

    def run(*arguments):
        code = main(["--config", str(tmp_path / "site.toml"), "--json", *map(str, arguments)])
        return code, json.loads(capsys.readouterr().out)

    found = Site(tmp_path, run)
    monkeypatch.setattr(clouds, "open_cloud", lambda _settings: found.cloud)
    yield found
    found.database.close()


def test_a_population_of_every_program_is_shown_first_and_then_taken_over(site):
    site.populate()
    before = {identifier: dict(stored.properties) for identifier, stored in site.cloud.images.items()}
    code, said = site.run("cloud", "adopt", "main", "--dry-run")
    assert code == 0, said
    assert [each["outcome"] for each in said["data"]["images"]] == ["would be taken"] * len(NAMES)
    assert {identifier: dict(stored.properties) for identifier, stored in site.cloud.images.items()} == before
    assert site.kinds() == []
    code, said = site.run("cloud", "adopt", "main")
    assert code == 0, said
    assert {each["outcome"] for each in said["data"]["images"]} == {"taken"}
    assert {each["program"] for each in said["data"]["images"]} == {
        "atrope", "cloudkeeper-one", "cloudkeeper-os", "nifty", "vmcatcher",
    }  # fmt: skip
    assert site.kinds() == ["ImageAdopted"] * len(NAMES)
    names = {each["name"] for each in site.run("cloud", "images")[1]["data"]["images"]}
    assert names == {f"Image of {name} {site.publisher.images[0]['hv:version']}" for name in NAMES}
    # What was taken is what sync would register: there is nothing for it to do.
    code, said = site.run("plan")
    assert [(each["plan"]["actions"], each["plan"]["unchanged"]) for each in said["data"]["clouds"]] == [
        ([], len(NAMES))
    ], said
    code, said = site.run("cloud", "adopt", "main")
    assert (code, said["data"]["images"]) == (0, [])
    assert site.kinds() == ["ImageAdopted"] * len(NAMES)


def test_what_no_checksum_proves_is_taken_only_where_that_is_asked_for(site):
    site.populate(tells_checksum=False)
    code, said = site.run("cloud", "adopt", "main")
    assert code == 0
    assert {each["outcome"] for each in said["data"]["images"]} == {"not proven"}
    assert site.cloud.describe() == ()
    assert any("--trust-markers" in each for each in said["messages"])
    code, said = site.run("cloud", "adopt", "main", "--trust-markers")
    assert {each["outcome"] for each in said["data"]["images"]} == {"taken"}
    assert {each.marker.adopted_from for each in site.cloud.describe()} == {
        each["program"] for each in said["data"]["images"]
    }


def test_while_another_run_changes_the_cloud_nothing_is_taken_over_or_cleared(site):
    site.populate()
    with cloud_lock(site.settings, "main"):
        for words in ("adopt", "tidy"):
            assert site.run("cloud", words, "main")[0] == 75
    assert site.cloud.describe() == ()


def test_what_this_cloud_does_not_take_is_not_taken_over(site):
    site.config.write_text(SETTINGS.replace("vo.example.org", "other.example.org"))
    site.populate()
    code, said = site.run("cloud", "adopt", "main", "--trust-markers")
    assert code == 0
    assert {each["outcome"] for each in said["data"]["images"]} == {"left"}
    assert any("'vo.example.org'?" in each for each in site.run("status")[1]["messages"])


def test_what_of_one_image_goes_wrong_is_told_and_the_others_are_taken(site, monkeypatch):
    site.populate()
    adopt_one = site.cloud.adopt

    def failing(foreign, marker, presentation):
        if foreign.cloud_identifier == "old-nifty":
            raise CloudUnreachableError("the cloud went away")
        return adopt_one(foreign, marker, presentation)

    monkeypatch.setattr(site.cloud, "adopt", failing)
    code, said = site.run("cloud", "adopt", "main")
    assert (code, said["status"]) == (1, "partial")
    assert sorted(each["identifier"] for each in said["data"]["images"] if each["outcome"] == "failed") == ["old-nifty"]
    assert sorted(site.kinds()) == ["ImageAdopted"] * (len(NAMES) - 1) + ["ImageFailed"]
    monkeypatch.undo()
    report = adopt(site.cloud, settings=site.settings, database=site.database, clock=SystemClock(), monitor=SILENT)
    assert [each.candidate.foreign.cloud_identifier for each in report.results] == ["old-nifty"]


def test_a_cloud_that_cannot_be_asked_has_nothing_taken_and_that_is_told_once(site, monkeypatch):
    site.populate()
    monkeypatch.setattr(site.cloud, "foreign", unreachable)
    code, said = site.run("cloud", "adopt", "main")
    assert (code, said["errors"][0]["code"]) == (8, "cloud-unreachable")
    assert site.cloud.describe() == ()


def test_a_cloud_of_which_other_programs_know_nothing_says_so(site, monkeypatch):
    monkeypatch.setattr(site.cloud, "foreign", None)
    code, said = site.run("cloud", "adopt", "main")
    assert (code, said["errors"][0]["code"]) == (8, "cloud-adoption")
    code, said = site.run("cloud", "show", "main")
    assert (said["data"]["adopts"], said["data"]["tidies"]) == (False, True)


def test_what_registrations_left_behind_is_shown_and_then_cleared(site):
    site.cloud.files["file-1"] = "test-site"
    site.cloud.files["file-2"] = "other-site"
    code, said = site.run("cloud", "tidy", "main", "--dry-run")
    assert (code, [each["outcome"] for each in said["data"]["leftovers"]]) == (0, ["would be cleared"])
    assert site.cloud.files == {"file-1": "test-site", "file-2": "other-site"}
    code, said = site.run("cloud", "tidy", "main")
    assert (code, [each["outcome"] for each in said["data"]["leftovers"]]) == (0, ["cleared"])
    assert site.cloud.files == {"file-2": "other-site"}
    assert site.kinds() == ["LeftoverCleared"]
    assert site.run("cloud", "tidy", "main")[1]["data"]["leftovers"] == []


def test_what_cannot_be_cleared_fails_alone(site, monkeypatch):
    site.cloud.files |= {"file-1": "test-site", "file-2": "test-site"}
    clear_one = site.cloud.clear

    def failing(leftover):
        if leftover.identifier == "file-1":
            raise CloudUnreachableError("the cloud went away")
        clear_one(leftover)

    monkeypatch.setattr(site.cloud, "clear", failing)
    report = tidy(site.cloud, settings=site.settings, database=site.database, clock=SystemClock(), monitor=SILENT)
    assert [each.code for each in report.errors] == ["cloud-unreachable"]
    assert site.cloud.files == {"file-1": "test-site"}


def test_how_a_cloud_is_set_up_is_shown_with_what_it_has(site):
    site.populate()
    site.run("cloud", "adopt", "main")
    code, said = site.run("cloud", "show", "main")
    assert code == 0
    assert said["data"]["states"] == {"available": len(NAMES)}
    assert said["data"]["mapping"]["only_vos"] == ["vo.example.org"]
    assert (said["data"]["grace_days"], said["data"]["keep_versions"]) == (7, 0)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('image_name = "{titel}"', "did you mean {title}"),
        ('include = "os ="', "clouds.main.include"),
        ('exclude = "colour = red"', "clouds.main.exclude"),
        ('[clouds.main.vos."a"]\nname = "x"', "every image the same name"),
        ('[clouds.main.images."a"]\nname = "{versio}"', "did you mean {version}"),
    ],
)
def test_a_mistake_in_what_a_cloud_takes_ends_every_command_before_anything_is_done(site, line, told):
    site.config.write_text(SETTINGS.replace('image_name = "{title} {version}"\n', "") + line)
    for words in (("status",), ("sync",), ("cloud", "list")):
        code, said = site.run(*words)
        assert code == 3
        assert told in json.dumps(said["errors"])


def test_status_shows_how_each_appliance_stands_and_asks_clouds_only_when_told_to(site, monkeypatch, capsys):
    code, said = site.run("status")
    assert code == 0
    assert {each["standing"] for each in said["data"]["appliances"]} == {"unseen"}
    assert said["data"]["clouds"][0]["seen_at"] is None
    site.populate()
    site.run("cloud", "adopt", "main")
    monkeypatch.setattr(site.cloud, "describe", None)
    code, said = site.run("status")
    assert code == 0
    appliances = said["data"]["appliances"]
    assert [each["standing"] for each in appliances] == ["current"] * len(NAMES)
    first = appliances[0]
    assert (first["cloud"], first["listed"], first["registered"], first["state"]) == ("main", "1", "1", "available")
    assert first["title"] == f"Image of {NAMES[0]}"
    assert first["age_seconds"] >= 0
    assert first["next"]["what"] == "expired"
    assert first["next"]["at"] == first["expires"]
    assert first["versions"][0]["adopted_from"] == "atrope"
    assert said["data"]["clouds"][0]["images"] == len(NAMES)
    assert main(["--config", str(site.config), "status"]) == 0
    shown = capsys.readouterr().out
    assert "current" in shown
    assert "Image of nifty" in shown


def test_status_that_asks_says_what_a_cloud_did_not_answer_and_keeps_what_was_seen(site, monkeypatch):
    site.populate()
    site.run("cloud", "adopt", "main")
    monkeypatch.setattr(site.cloud, "describe", unreachable)
    code, said = site.run("status", "--ask")
    assert (code, said["status"]) == (1, "partial")
    assert said["errors"][0]["code"] == "cloud-unreachable"
    (cloud,) = said["data"]["clouds"]
    assert (cloud["error_code"], cloud["images"]) == ("cloud-unreachable", len(NAMES))
    assert {each["standing"] for each in said["data"]["appliances"]} == {"current"}
    assert any("the cloud is away" in each for each in said["messages"])
    code, said = site.run("status")
    assert (code, said["data"]["clouds"][0]["error_code"]) == (0, "cloud-unreachable")


def test_status_of_a_cloud_that_answers_again_says_what_is_there_now(site):
    site.populate()
    site.run("cloud", "adopt", "main")
    del site.cloud.images["old-nifty"]
    code, said = site.run("status", "--ask")
    assert code == 0
    standing = {each["title"]: (each["standing"], each["next"]["what"]) for each in said["data"]["appliances"]}
    assert standing["Image of nifty"] == ("missing", "register")
    assert standing["Image of atrope"] == ("current", "expired")


def test_what_a_cloud_takes_and_shows_is_among_the_settings_that_are_shown(site):
    more = '[clouds.main.vos."Vo.Example"]\nmembers = ["p"]\nproperties = { a = "1" }\n'
    more += "[clouds.main.images.i]\ngrace_days = 3\n"
    site.config.write_text(SETTINGS + more)
    code, said = site.run("config", "show")
    assert code == 0
    shown = {each["name"]: each["value"] for each in said["data"]["settings"]}
    assert shown["clouds.main.only_vos"] == ["vo.example.org"]
    assert shown["clouds.main.image_name"] == "{title} {version}"
    assert shown["clouds.main.vos.Vo.Example.members"] == ["p"]
    assert shown["clouds.main.vos.Vo.Example.properties.a"] == "1"
    assert shown["clouds.main.images.i.grace_days"] == 3.0


def test_what_was_made_here_proves_an_image_whatever_kind_of_checksum_the_cloud_tells(site):
    image = site.wanted()["cloudkeeper-os"]
    made = b"what was made of it" * 50
    path = place_of(conversion_directory(site.settings), image.listed.checksum, ("test",), DiskFormat.QCOW2)
    path.parent.mkdir(parents=True)
    path.write_bytes(made)
    facts = Inspection(
        format=DiskFormat.RAW,
        size_bytes=len(made),
        virtual_size_bytes=len(made),
        disk=Detection(format=DiskFormat.RAW, virtual_size_bytes=len(made)),
    )
    kept = Image(
        format=DiskFormat.QCOW2,
        size_bytes=len(made),
        virtual_size_bytes=len(made),
        checksum=Checksum.of(made, "sha256"),
    )
    write_made(path, Made(image=kept, source=image.listed.checksum, converter="test", is_seed=False, found=facts))
    keep_in_memory(site.cloud, POPULATIONS["cloudkeeper-os"](image, made), "old")
    assert [each["proof"] for each in site.run("cloud", "adopt", "main", "--dry-run")[1]["data"]["images"]] == [
        "converted"
    ]
    # The same length, other bytes: whoever altered them here proves nothing of the cloud's by it.
    path.write_bytes(made[::-1])
    site.cloud.images.clear()
    keep_in_memory(site.cloud, POPULATIONS["cloudkeeper-os"](image, made[::-1]), "old")
    assert [each["proof"] for each in site.run("cloud", "adopt", "main", "--dry-run")[1]["data"]["images"]] != [
        "converted"
    ]
