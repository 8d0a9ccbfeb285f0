# SPDX-License-Identifier: Apache-2.0
"""The settings of a cloud whose driver is libvirt."""

from __future__ import annotations

from typing import Any

import pytest

from coppice.cloud.clouds import open_cloud
from coppice.cloud.libvirt_pool.driver import LibvirtCloud
from coppice.errors import SettingsError
from coppice.model.image import DiskFormat
from coppice.settings.clouds import CloudSettings, VoSettings

pytestmark = pytest.mark.unit


def opened(options: dict[str, object] | None = None, **changes: Any) -> LibvirtCloud:
    facts: dict[str, Any] = {
        "name": "lab",
        "driver": "libvirt",
        "site": "here",
        "formats": (),
        "options": options or {},
    }
    cloud = open_cloud(CloudSettings(**(facts | changes)))
    assert isinstance(cloud, LibvirtCloud)
    return cloud


def test_without_options_it_is_the_systems_libvirt_and_its_usual_pool() -> None:
    cloud = opened()
    assert cloud.session.uri == "qemu:///system"
    assert (cloud.placing.pool, cloud.placing.network, cloud.placing.hypervisor) == ("default", "user", "auto")
    assert cloud.placing.verify
    assert cloud.formats == (DiskFormat.QCOW2, DiskFormat.RAW)


def test_all_options_are_taken() -> None:
    cloud = opened(
        {
            "uri": "qemu:///session",
            "pool": "images",
            "hypervisor": "kvm",
            "network": "default",
            "verify": False,
            "timeout": "5 min",
        },
        formats=("raw",),
        vos={"biomed": VoSettings(datastores=("more",))},
    )
    assert cloud.placing.pools == ("images", "more")
    assert (cloud.session.call_seconds, cloud.placing.verify) == (300.0, False)
    assert cloud.formats == (DiskFormat.RAW,)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("qemu+ssh://user@host/system", "qemu+ssh://user@host/system?no_tty=1"),
        ("qemu+ssh://host/system?keyfile=/k", "qemu+ssh://host/system?keyfile=/k&no_tty=1"),
        ("qemu+ssh://host/system?no_tty=0", "qemu+ssh://host/system?no_tty=0"),
        ("qemu+tls://host/system", "qemu+tls://host/system"),
    ],
)
def test_over_ssh_nobody_is_asked_for_a_password(uri: str, expected: str) -> None:
    assert opened({"uri": uri}).session.uri == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"uri": "xen:///system"}, "QEMU's driver"),
        ({"uri": "test:///default"}, "QEMU's driver"),
        ({"uri": "qemu+tcp://host/system"}, "in the open"),
        ({"uri": "qemu+ssh://user:secret@host/system"}, "password"),
        ({"uri": 7}, "`uri`"),
        ({"pool": "a/b"}, "storage pool"),
        ({"hypervisor": "xen"}, "`hypervisor`"),
        ({"verify": "perhaps"}, "`verify`"),
        ({"timeout": "0 s"}, "`timeout`"),
        ({"pol": "images"}, "'pol'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        opened(options)
    assert "secret" not in f"{caught.value.message} {caught.value.details} {caught.value.resolution}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"formats": ("vmdk",)}, "vmdk"),
        ({"visibility": "private"}, "visibility"),
        ({"vos": {"biomed": VoSettings(members=("a",))}}, "vos.biomed.members"),
        ({"vos": {"biomed": VoSettings(visibility="shared")}}, "vos.biomed.visibility"),
        ({"vos": {"biomed": VoSettings(datastores=("a", "b"))}}, "2 pools"),
        ({"vos": {"biomed": VoSettings(datastores=("a/b",))}}, "storage pool"),
    ],
)
def test_what_libvirt_cannot_do_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        opened(**changes)


def test_what_everybody_may_see_is_what_libvirt_shows() -> None:
    assert opened(visibility="public").name == "lab"
