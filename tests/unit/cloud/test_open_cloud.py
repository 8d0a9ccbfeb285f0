# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.clouds import BUILT_IN, open_cloud, refuse_shared_places
from coppice.cloud.directory import DirectoryCloud
from coppice.cloud.image_folder import Description, start_script
from coppice.errors import SettingsError
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat
from coppice.settings.clouds import CloudSettings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def target(driver: str = "directory", *, site: str = "s", formats: tuple[str, ...] = (), **options: object):
    return CloudSettings(name="local", driver=driver, site=site, formats=formats, options=options)


def test_a_directory_is_opened_with_its_settings_and_asked_nothing(tmp_path: Path):
    cloud = open_cloud(target(path=str(tmp_path / "x"), formats=("raw",)))
    assert isinstance(cloud, DirectoryCloud)
    assert (cloud.name, cloud.site, cloud.path) == ("local", "s", tmp_path / "x")
    assert cloud.formats == (DiskFormat.RAW,)
    assert not (tmp_path / "x").exists()


def test_without_formats_a_driver_takes_its_own():
    assert open_cloud(target("memory")).formats == (DiskFormat.QCOW2, DiskFormat.RAW)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (target("directroy", path="/x"), "Did you mean 'directory'"),
        (target(pth="/x"), "Did you mean 'path'"),
        (target(path="/x", visiblity="shared"), "Did you mean 'visibility'"),
        (target(path="/x", formats=("qcow",)), "Did you mean 'qcow2'"),
        (target("memory", path="/x"), "not an option of driver memory"),
        (target(path="relative"), "absolute"),
        (target(), "absolute"),
        (target(path=7), "absolute"),
        (target(path="/x", site=" "), "site is empty"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_was_meant(settings: CloudSettings, said: str):
    with pytest.raises(SettingsError, match=said):
        open_cloud(settings)


def test_every_built_in_driver_exists():
    import importlib

    for driver in BUILT_IN.values():
        module = importlib.import_module(driver.module)
        assert callable(getattr(module, driver.function))
        assert isinstance(module.OPTIONS, frozenset)


@pytest.mark.parametrize("hostile", ["x86_64; reboot", "$(id)", "aarch64\nreboot"])
def test_a_start_script_contains_nothing_that_a_list_wrote(hostile: str):
    description = Description(
        properties={},
        metadata={
            "title": "$(id); reboot",
            "architecture": hostile,
            "minimum_ram_mib": "512; reboot",
            "minimum_cores": "-1",
        },
        format=DiskFormat.QCOW2,
        size_bytes=1,
        virtual_size_bytes=1,
        checksum=Checksum.of(b""),
    )
    script = start_script(description)
    assert "reboot" not in script
    assert "id)" not in script
    assert "-m 1024 -smp 1 " in script
    assert "snapshot=on" in script


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (target(path="/pool"), target(path="/x/../pool/")),
        (target("openstack", cloud="main", region="a"), target("openstack", region="a", cloud="main", timeout=3)),
        (target("opennebula", endpoint="http://one:2633/RPC2"), target("opennebula", endpoint="http://one:2633/RPC2")),
        (target("libvirt"), target("libvirt", timeout=3)),
    ],
)
def test_two_targets_that_are_one_place_as_one_site_are_refused(one: CloudSettings, other: CloudSettings):
    with pytest.raises(SettingsError, match=r"clouds\.local and clouds\.other are the same place"):
        refuse_shared_places([one, replace(other, name="other")])


def test_targets_of_other_places_or_sites_stand_beside_each_other():
    refuse_shared_places(
        replace(each, name=str(number))
        for number, each in enumerate(
            [
                *(target(path="/pool"), target(path="/pool", site="t"), target(path="/other"), target(path=7)),
                *(target("openstack", cloud="main", region="a"), target("openstack", cloud="main", region="b")),
                *(target("memory"), target("memory"), target("of-somebody"), target("of-somebody")),
            ]
        )
    )


def test_a_description_nested_too_deeply_is_none() -> None:
    with pytest.raises(ValueError, match="Recursion"):
        Description.parse("[" * 100_000)
