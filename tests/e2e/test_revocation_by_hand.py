# SPDX-License-Identifier: Apache-2.0
"""``coppice image revoke`` where not all is well."""

from __future__ import annotations

import pytest

from coppice.errors import NotFoundError

pytestmark = pytest.mark.e2e

SETTINGS = """\
state_directory = "{path}/state"

[clouds.good]
driver = "directory"
site = "here"
path = "{path}/images"

[clouds.wrong]
driver = "directory"
site = "here"
"""


def test_a_mistake_in_the_settings_of_one_cloud_holds_up_no_revocation(kit, tmp_path):
    line = kit.CommandLine(tmp_path / "site", SETTINGS.format(path=tmp_path))
    ended = line.run("--json", "image", "revoke", "a-list/an-image", "--every-version", "--reason", "a door")
    assert ended.code != 0, ended
    assert ended.codes == ["settings-invalid"]
    clouds = {each["cloud"]: each["error"] for each in ended.data["run"]["clouds"]}
    assert clouds["good"] is None
    assert clouds["wrong"]["code"] == "settings-invalid"
    (revoked,) = line.ok("image", "revoked")["revocations"]
    assert (revoked["list"], revoked["image"]) == ("a-list", "an-image")


def test_a_subscription_that_was_mistyped_is_not_taken_for_a_list_that_nobody_knows(site):
    image = site.first["dc:identifier"]
    mistyped = f"demox/{image}"
    ended = site.run("--json", "image", "revoke", mistyped, "--every-version", "--reason", "a door")
    assert (ended.code, ended.codes) == (NotFoundError.exit_code, ["not-found"])
    assert f"demo/{image}" in ended.said["errors"][0]["resolution"]
    assert site.ok("image", "revoked")["revocations"] == []
    revoke = ("image", "revoke", f"demo/{image}", "--every-version", "--reason", "a door")
    assert "Nothing could start" not in site.run(*revoke).stderr
    assert set(site.images().values()) == {"revoked"}


def test_of_what_is_withdrawn_already_it_is_not_said_that_no_cloud_has_it(site):
    image = site.first["dc:identifier"]
    site.ok("subscription", "remove", "demo")
    site.ok("sync", "--allow-withdrawals")
    assert set(site.images().values()) == {"withdrawn"}
    key = f"{site.publisher.identifier}/{image}"
    ended = site.run("image", "revoke", key, "--every-version", "--reason", "a door")
    assert ended.code == 0, ended
    assert "Nothing could start from it in any cloud" in ended.stderr
