# SPDX-License-Identifier: Apache-2.0
"""A whole life in a real libvirt by the command line alone."""

from __future__ import annotations

import pytest

from coppice.cloud.libvirt_pool.reading import read_definition
from coppice.cloud.libvirt_pool.record import IMAGE, CurrentRecord, Record
from coppice.testing.libvirtd import POOL, library

# The gate has whole lives by the workflows (tests/integration/test_full_life.py): this is the same by the command line.
pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

SETTINGS = """
state_directory = "{root}/state"

[transfer]
allow_private_addresses = true

[clouds.lab]
driver = "libvirt"
site = "e2e"
uri = "{uri}"
pool = "{pool}"
hypervisor = "qemu"
network = "none"
"""


class Lab:
    """A libvirt as its users see it."""

    def __init__(self, connection, pool) -> None:
        self.connection = connection
        self.pool = pool

    def _definitions(self):
        for machine in self.connection.listAllDomains(0):
            yield machine, read_definition(machine.XMLDesc(library().VIR_DOMAIN_XML_INACTIVE))

    def states(self):
        """Return the state of each version, as it is written on its definition."""
        records = [Record.parse(found.text) for _, found in self._definitions() if found.kind == IMAGE]
        return {record.properties["coppice_version"]: record.properties["coppice_state"] for record in records}

    def version(self, version):
        """Return the machine of a version."""
        for machine, found in self._definitions():
            if found.kind == IMAGE and Record.parse(found.text).properties["coppice_version"] == version:
                return machine
        return None

    def current(self):
        """Return the machine that leads to the current version; None: there is none."""
        return next((machine for machine, found in self._definitions() if found.kind != IMAGE), None)

    def starts(self):
        """Return the version that a machine would be of which is started now; None: none can be."""
        current = self.current()
        if current is None:
            return None
        current.createWithFlags(library().VIR_DOMAIN_START_PAUSED)
        text = read_definition(current.XMLDesc(0)).text
        current.destroy()
        led = self.connection.lookupByUUIDString(CurrentRecord.parse(text).leads_to)
        return Record.parse(read_definition(led.XMLDesc(0)).text).properties["coppice_version"]


@pytest.fixture
def lab(libvirtd):
    libvirtd.clear()
    with libvirtd.connection() as connection:
        yield Lab(connection, libvirtd.pool)


@pytest.fixture
def site(kit, lab, libvirtd, server, tmp_path):
    made = kit.Site(tmp_path / "site", server)
    made.settings.write_text(SETTINGS.format(root=made.root, uri=libvirtd.uri, pool=POOL))
    made.subscribe()
    return made


def check_first_version(site, lab):
    """Register, run again, retitle."""
    site.ok("cloud", "check", "lab")
    site.synced()
    assert lab.states() == {"1": "available"}
    assert lab.starts() == "1"
    identifier = lab.current().UUIDString()
    (file,) = lab.pool.iterdir()
    before = file.stat().st_mtime_ns
    site.synced()
    site.first["dc:title"] = 'Debian "stable" ]]> </name>'
    site.next_version()
    site.publish()
    site.synced()
    assert lab.current().UUIDString() == identifier
    title = lab.current().metadata(library().VIR_DOMAIN_METADATA_TITLE, None)
    assert title == 'Debian "stable" ]]> </name>'
    assert file.stat().st_mtime_ns == before


def check_second_version(kit, site, lab):
    """Update, roll back, release, revoke, take that back."""
    site.renew(site.first, kit.tiny_qcow2(site.root, seed=2), "2")
    site.next_version()
    site.publish()
    site.synced()
    assert lab.states() == {"1": "superseded", "2": "available"}
    assert lab.starts() == "2"
    image = f"demo/{site.first['dc:identifier']}"
    site.ok("image", "rollback", image, "--to", "1", "--reason", "its kernel does not start")
    assert lab.starts() == "1"
    site.ok("image", "release", image)
    site.synced()
    assert lab.starts() == "2"
    site.ok("image", "revoke", image, "--image-version", "2", "--reason", "a password was left in it")
    assert lab.states()["2"] == "revoked"
    assert lab.starts() != "2"
    with pytest.raises(library().libvirtError, match="not-startable-revoked"):
        lab.version("2").create()
    assert "a password was left in it" in lab.version("2").metadata(0, None)
    site.ok("image", "unrevoke", image, "--image-version", "2")
    site.synced()
    assert lab.starts() == "2"


def check_end(site, lab):
    """Withdraw; what is used stays until it is not."""
    used = lab.version("2")
    used.createWithFlags(library().VIR_DOMAIN_START_PAUSED)
    site.publisher.images.clear()
    site.next_version()
    site.publish()
    withdrawn = site.sync("--allow-withdrawals")
    assert withdrawn.code == 0, withdrawn
    assert set(lab.states().values()) == {"withdrawn"}
    assert lab.current() is None
    no_grace = {"COPPICE_PLAN__GRACE_DAYS": "0"}
    site.run("--json", "retire", environ=no_grace)
    assert set(lab.states()) == {"2"}
    assert used.isActive()
    used.destroy()
    site.ok("retire", environ=no_grace)
    assert lab.connection.listAllDomains(0) == []
    assert list(lab.pool.iterdir()) == []


@pytest.mark.threat("T36", "T37", "T90", "T93")
def test_a_whole_life_in_libvirt_by_the_command_line_alone(kit, site, lab):
    check_first_version(site, lab)
    check_second_version(kit, site, lab)
    check_end(site, lab)
