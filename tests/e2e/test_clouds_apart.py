# SPDX-License-Identifier: Apache-2.0
"""Several clouds at one site: one that fails stops no other, and what it lacks comes when it answers again."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.threat("T91")]
SECOND = """
[clouds.there]
driver = "directory"
site = "e2e"
path = "{root}/there"
"""


def test_of_two_clouds_one_that_fails_stops_not_the_other_and_both_get_what_was_fetched_once(kit, tmp_path, server):
    root = tmp_path / "site"
    site = kit.Site(root, server, cloud=SECOND.format(root=root))
    site.subscribe()
    (root / "there").write_text("no folder")
    ended = site.sync()
    assert ended.said["status"] == "partial"
    fine, failed = ended.data["clouds"]
    assert (fine["error"], [each["done"] for each in fine["results"]]) == (None, [True])
    assert failed["cloud"] == "there"
    (root / "there").unlink()
    site.synced()
    found = site.ok("cloud", "images")["images"]
    assert sorted(each["cloud"] for each in found) == ["here", "there"]
    assert {each["marker"]["state"] for each in found} == {"available"}
    asked = [each for each in server.requests if each.path.endswith(".qcow2") and each.method == "GET"]
    assert len(asked) == 1
    kinds = [each["kind"] for each in site.ok("event", "list")["events"]]
    assert (kinds.count("CloudFailed"), kinds.count("CloudRecovered")) == (1, 1)


def test_of_two_clouds_one_whose_settings_are_wrong_stops_not_the_other(kit, tmp_path, server):
    root = tmp_path / "site"
    wrong = SECOND.format(root=root).replace("path =", "paht =")
    site = kit.Site(root, server, cloud=wrong)
    site.subscribe()
    ended = site.sync()
    assert ended.said["status"] == "partial"
    fine, failed = ended.data["clouds"]
    assert (fine["error"], [each["done"] for each in fine["results"]]) == (None, [True])
    assert (failed["cloud"], failed["error"]["code"]) == ("there", "settings-invalid")
    assert "clouds.there.paht" in failed["error"]["message"]
    assert "Did you mean 'path'?" in failed["error"]["message"]
    retired = site.run("--json", "retire")
    assert [each["error"] and each["error"]["code"] for each in retired.data["clouds"]] == [None, "settings-invalid"]
    # Asked for by name, there is nothing else that could go on.
    assert site.sync("--cloud", "there").said["errors"][0]["code"] == "settings-invalid"
