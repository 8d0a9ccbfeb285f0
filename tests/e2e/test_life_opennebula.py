# SPDX-License-Identifier: Apache-2.0
"""A whole life in OpenNebula by the command line alone, over the simulated front-end."""

from __future__ import annotations

import subprocess

import pytest

from coppice.testing.opennebula.objects import Right, State
from coppice.testing.opennebula_stand import OpenNebulaStand

# The gate has whole lives by the workflows (tests/integration/test_full_life.py): this is the same by the command line.
pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

SETTINGS = """
state_directory = "{root}/state"

[transfer]
allow_private_addresses = true

[clouds.one]
driver = "opennebula"
site = "e2e"
visibility = "public"
endpoint = "{endpoint}"
secret_file = "{root}/one_auth"
timeout = 20
networks = ["public"]

[clouds.one.transport]
driver = "path"
directory = "{offers}"
"""


@pytest.fixture
def stand(tmp_path):
    stand = OpenNebulaStand(tmp_path / "cloud")
    with stand.simulator:
        yield stand


@pytest.fixture
def site(kit, stand, server, tmp_path):
    made = kit.Site(tmp_path / "site", server)
    auth = made.root / "one_auth"
    auth.write_text(stand.simulator.session)
    auth.chmod(0o600)
    offers = stand.transport.directory
    made.settings.write_text(SETTINGS.format(root=made.root, endpoint=stand.simulator.endpoint, offers=offers))
    made.subscribe()
    return made


def states(stand):
    """Return the state of each version, as it stands on its image; looking takes no command."""
    return {
        image.template.first("COPPICE_VERSION"): image.template.first("COPPICE_STATE")
        for image in stand.simulator.images()
    }


def starts(stand):
    """Return the version that an ordinary user's machine would be of; None: there is none."""
    for template in stand.simulator.templates():
        (disk,) = template.template.all("DISK")
        image = stand.simulator.world.images.get(int(disk["IMAGE_ID"]))
        whole = image is not None and image.state in {State.READY, State.USED}
        if whole and template.allows(stand.user, Right.USE) and image.allows(stand.user, Right.USE):
            return image.template.first("COPPICE_VERSION")
    return None


def check_first_version(kit, site, stand):
    """Register, run again, retitle."""
    site.synced()
    assert states(stand) == {"1": "available"}
    assert starts(stand) == "1"
    (template,) = stand.simulator.templates()
    before = len(stand.simulator.calls)
    site.synced()
    assert {*stand.simulator.calls[before:]} == {"one.imagepool.info", "one.templatepool.info"}
    site.first["dc:title"] = 'Debian "stable" ]]> </NAME>'
    site.next_version()
    site.publish()
    site.synced()
    (retitled,) = stand.simulator.templates()
    assert retitled.identifier == template.identifier
    assert retitled.name == "Debian stable ]] NAME"


def check_second_version(kit, site, stand):
    """Update, roll back, release, revoke, take that back."""
    site.renew(site.first, kit.tiny_qcow2(site.root, seed=2), "2")
    site.next_version()
    site.publish()
    site.synced()
    assert states(stand) == {"1": "superseded", "2": "available"}
    assert starts(stand) == "2"
    image = f"demo/{site.first['dc:identifier']}"
    site.ok("image", "rollback", image, "--to", "1", "--reason", "its kernel does not start")
    assert starts(stand) == "1"
    site.ok("image", "release", image)
    site.ok("image", "revoke", image, "--image-version", "2", "--reason", "a password was left in it")
    assert states(stand)["2"] == "revoked"
    assert starts(stand) != "2"
    site.ok("image", "unrevoke", image, "--image-version", "2")
    site.synced()
    assert starts(stand) == "2"


def check_end(site, stand):
    """Withdraw; what is used stays until it is not."""
    (used,) = (each for each in stand.simulator.images() if each.template.first("COPPICE_VERSION") == "2")
    machine = stand.simulator.start_machine(used.identifier)
    site.publisher.images.clear()
    site.next_version()
    site.publish()
    withdrawn = site.sync("--allow-withdrawals")
    assert withdrawn.code == 0, withdrawn
    assert set(states(stand).values()) == {"withdrawn"}
    assert starts(stand) is None
    assert used.state is State.USED
    no_grace = {"COPPICE_PLAN__GRACE_DAYS": "0"}
    site.run("--json", "retire", environ=no_grace)
    assert set(states(stand)) == {"2"}
    stand.simulator.end_machine(machine)
    site.ok("retire", environ=no_grace)
    assert (stand.simulator.images(), stand.simulator.templates(), stand.simulator.stray_files()) == ([], [], [])
    assert list(stand.transport.directory.iterdir()) == []


@pytest.mark.threat("T36", "T37", "T90", "T93")
def test_a_whole_life_in_opennebula_by_the_command_line_alone(kit, site, stand):
    check_first_version(kit, site, stand)
    check_second_version(kit, site, stand)
    check_end(site, stand)
    secret = stand.simulator.session.partition(":")[2]
    told = subprocess.run(["grep", "-rlaF", f":{secret}", site.root], capture_output=True, text=True, check=False)
    assert told.stdout.split() == [str(site.root / "one_auth")]
