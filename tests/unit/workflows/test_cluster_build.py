# SPDX-License-Identifier: Apache-2.0
"""What is sent to the workers of a cluster, and what stays here."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coppice.clock import FixedClock
from coppice.definition.model import Start
from coppice.definition.read import read_definition
from coppice.errors import NotFoundError, SettingsError
from coppice.factory.model import BuildResult, Provenance
from coppice.model.checksum import Checksum
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.settings.model import ClusterSettings, HookSettings, PublisherSettings, ServiceSettings, Settings
from coppice.workflows import start_images
from coppice.workflows.build import Here
from coppice.workflows.cluster_build import OnCluster, check_place, opened_place, portable
from coppice.workflows.start_images import StartImages, VouchedImage

pytestmark = pytest.mark.unit

SHIPPED = read_definition(Path(__file__).parents[3] / "definitions" / "debian-12")
GOING = {"monitor": SILENT, "stopped": lambda: False}
SECRET = "correct-horse"  # noqa: S105 - of nothing
BUILDS = {"state_directory", "factory", "transfer", "conversion"}
LEFT_OUT = {"database_url", "definitions_directory", "cluster", "service", "publishers", "clouds", "hooks", "origins"}
WITHOUT_SECRETS = {"lists", "subscriptions", "publishing", "plan", "cache", "events"}


@pytest.fixture
def plain(tmp_path):
    file = tmp_path / "coppice.toml"
    file.write_text(f'state_directory = "{tmp_path}/state"\n')
    return load_settings(config=file, environ={}, options={}, system_file=file)


@pytest.fixture
def secretive(plain):
    return replace(
        plain,
        database_url=f"postgresql://coppice:{SECRET}@database.example/coppice",
        definitions_directory=Path(f"/{SECRET}"),
        factory=replace(plain.factory, mirror=f"https://site:{SECRET}-of-mirror@mirror.example/debian"),
        transfer=replace(
            plain.transfer,
            proxy=f"http://site:{SECRET}-of-proxy@proxy.example:3128",
            mirrors={"https://images.example": (f"https://site:{SECRET}-of-proxy@near.example",)},
        ),
        cluster=ClusterSettings(scheduler="tls://scheduler.example:8786", key_file=Path(f"/{SECRET}")),
        service=ServiceSettings(listen=SECRET),
        publishers={"web": PublisherSettings(name="web", driver="webdav", options={"password": SECRET})},
        hooks={"chat": HookSettings(name="chat", kind="webhook", url=f"https://chat.example/{SECRET}")},
        origins={SECRET: SECRET},
    )


def sent(settings):
    return pickle.dumps(settings).decode("latin-1")


def test_workers_get_no_database_and_no_secret_that_they_do_not_need(secretive):
    assert SECRET not in sent(portable(secretive, builds=False))
    building = sent(portable(secretive))
    assert building.count(SECRET) == building.count(f"{SECRET}-of-mirror") == 1
    fetching = sent(portable(secretive, fetches=True))
    assert f"{SECRET}-of-proxy" in fetching
    assert "database.example" not in fetching


def test_every_section_of_the_settings_was_thought_of(plain, secretive):
    # Whoever adds one says whether workers need it.
    assert {each.name for each in fields(Settings)} == BUILDS | LEFT_OUT | WITHOUT_SECRETS
    for name in LEFT_OUT:
        assert getattr(secretive, name) != getattr(plain, name) or name == "clouds"
        assert getattr(portable(secretive), name) == getattr(portable(plain), name)


class Cluster:
    """Notes what it is to do."""

    def __init__(self) -> None:
        self.asked = []

    def do(self, what, *arguments, name, needs, monitor, stopped):
        self.asked.append((what.__name__, arguments))

    def has(self, needs):
        return False

    def capacity(self):
        return 200


@pytest.fixture
def cluster():
    return Cluster()


def result(definition):
    provenance = Provenance(
        definition_digest="d", builder="b 1", tools=(), started_at=datetime(2026, 1, 1, tzinfo=UTC), seconds=1
    )
    return BuildResult(
        definition=definition,
        key="0" * 64,
        directory=Path("/builds"),
        images=(),
        packages=(),
        provenance=provenance,
        verdicts=(),
        reused=False,
    )


def test_only_what_fetches_an_image_is_told_of_the_proxy(secretive, cluster):
    place = OnCluster(settings=secretive, cluster=cluster)
    started = replace(SHIPPED, start=Start(url="https://images.example/disk.qcow2", checksum=f"sha256:{'0' * 64}"))
    place.make(SHIPPED, ancestors=(), fresh=False, **GOING)
    place.make(started, ancestors=(), fresh=False, **GOING)
    # A child takes the image of its parent.
    place.make(started, ancestors=(result(started),), fresh=False, **GOING)
    place.test(result(SHIPPED), **GOING)
    assert [each[0] for each in cluster.asked] == ["make_here", "make_here", "make_here", "boot_here"]
    settings = [arguments[0] for _, arguments in cluster.asked]
    assert [each.transfer.proxy is not None for each in settings] == [False, True, False, False]
    assert [each.factory.mirror is not None for each in settings] == [True, True, True, False]


def test_what_a_build_starts_from_is_looked_up_here(plain, cluster, monkeypatch):
    plain.state_directory.mkdir()
    place = OnCluster(settings=plain, cluster=cluster)
    start = Start(catalogue="debian-12")
    with pytest.raises(NotFoundError):
        place.make(replace(SHIPPED, start=start), ancestors=(), fresh=False, **GOING)
    image = VouchedImage(name="debian-12 1", url="", checksum=Checksum.of(b"image"), path=Path("/state/image.qcow2"))
    monkeypatch.setattr(StartImages, "_in_catalogue", lambda _self, _reference: image)
    place.make(replace(SHIPPED, start=start), ancestors=(), fresh=False, **GOING)
    monkeypatch.undo()
    _, (settings, known, *_) = pickle.loads(pickle.dumps(cluster.asked[0]))  # noqa: S301 - as it is sent
    # A worker has no database to look into.
    monkeypatch.setattr(start_images, "Database", None)
    assert StartImages(settings=settings, known=known).identity(start) == str(image.checksum)


def test_as_many_builds_are_under_way_as_the_place_can(plain, cluster):
    assert OnCluster(settings=plain, cluster=cluster).at_once == 64
    assert Here(settings=plain, clock=FixedClock(datetime(2026, 1, 1, tzinfo=UTC))).at_once == 2


def test_a_place_is_this_process_or_the_cluster_that_the_settings_name(plain):
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    check_place("here", plain)
    with opened_place("here", settings=plain, clock=clock) as place:
        assert isinstance(place, Here)
    with pytest.raises(SettingsError, match=r"cluster\.scheduler"):
        check_place("cluster", plain)
    with (
        pytest.raises(SettingsError, match=r"cluster\.scheduler"),
        opened_place("cluster", settings=plain, clock=clock),
    ):
        pass
