# SPDX-License-Identifier: Apache-2.0
"""``coppice plan --out`` and ``coppice apply``: a plan is carried out when it is still the same, and never else."""

from __future__ import annotations

import json

import pytest

from coppice.errors import InputError, PlanFileError, StalePlanError, UnreadableFileError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture
def planned(site, kit):
    """Return a site with a plan for the second version of its image."""
    site.renew(site.first, kit.tiny_qcow2(site.root, seed=2), "2")
    site.next_version()
    site.publish()
    site.plan = site.root / "plan.json"
    said = site.ok("plan", "--out", site.plan)
    assert said["out"] == str(site.plan)
    return site


def apply(site, *arguments):
    return site.run("--json", "apply", *arguments, site.plan)


def changed(site, change):
    document = json.loads(site.plan.read_text())
    change(document)
    site.plan.write_text(json.dumps(document))


def test_a_plan_that_is_still_the_same_is_carried_out_once_without_a_list_being_fetched(planned):
    asked = len(planned.server.requests)
    assert apply(planned, "--dry-run").code == 0
    assert planned.images() == {("Debian 12", "1"): "available"}
    ended = apply(planned)
    assert ended.code == 0, ended
    assert [each["kind"] for each in ended.data["clouds"][0]["results"]] == ["register", "change-state"]
    assert planned.images() == {("Debian 12", "1"): "superseded", ("Debian 12", "2"): "available"}
    assert not [each for each in planned.server.requests[asked:] if each.path.endswith(".list")]
    again = apply(planned)
    assert (again.code, again.codes) == (StalePlanError.exit_code, ["plan-stale"])
    assert any(
        each.startswith("planned then, and not now") for each in again.said["errors"][0]["context"]["differences"]
    )


def test_a_plan_is_stale_when_a_newer_list_was_verified_since(planned, kit):
    planned.renew(planned.first, kit.tiny_qcow2(planned.root, seed=3), "3")
    planned.next_version()
    planned.publish()
    planned.ok("subscription", "refresh")
    before = planned.snapshot()["cloud"]
    assert apply(planned).codes == ["plan-stale"]
    assert planned.snapshot()["cloud"] == before


def test_a_plan_that_somebody_wrote_or_that_is_none_does_nothing(planned):
    before = planned.snapshot()["cloud"]
    changed(planned, lambda document: document["clouds"]["here"]["actions"][0].update(image="x\u202e\x1b[2J'\"\n"))
    ended = apply(planned)
    assert (ended.code, ended.codes) == (StalePlanError.exit_code, ["plan-stale"]), ended
    assert "\x1b" not in planned.run("apply", planned.plan).stderr
    planned.plan.write_text("[" * 100_000)
    ended = apply(planned)
    assert (ended.code, ended.codes) == (PlanFileError.exit_code, ["plan-file"])
    assert ended.said["errors"][0]["resolution"]
    assert planned.snapshot()["cloud"] == before


def test_a_plan_of_another_site_or_cloud_or_with_a_lifted_cap_is_refused(planned):
    whole = planned.plan.read_text()
    changed(planned, lambda document: document["sites"].update(here="elsewhere"))
    assert apply(planned).codes == ["plan-file"]
    planned.plan.write_text(whole)
    changed(planned, lambda document: document["clouds"].update(elsewhere={}))
    assert apply(planned).codes == ["not-found"]
    planned.plan.write_text(whole)
    changed(planned, lambda document: document.update(allow_withdrawals=True))
    assert apply(planned).codes == ["plan-file"]
    assert planned.images() == {("Debian 12", "1"): "available"}


def test_what_the_cap_holds_is_carried_out_only_when_it_is_said_at_both_times(site):
    del site.publisher.images[:]
    site.next_version()
    site.publish()
    site.plan = site.root / "plan.json"
    written = site.run("plan", "--allow-withdrawals", "--out", site.plan)
    assert written.code == 0
    assert f"`coppice apply --allow-withdrawals {site.plan}`" in written.stderr
    assert apply(site).codes == ["plan-file"]
    assert site.images() == {("Debian 12", "1"): "available"}
    carried_out = site.run("apply", "--allow-withdrawals", site.plan)
    assert carried_out.code == 0
    assert carried_out.stdout.startswith("here: 1 done, 0 held, 0 unchanged\n"), carried_out
    assert site.images() == {("Debian 12", "1"): "withdrawn"}


def test_a_path_that_was_mistyped_is_told_as_that_and_no_directory_is_made(site):
    ended = site.run("--json", "apply", site.root / "nothing.json")
    assert (ended.code, ended.codes) == (UnreadableFileError.exit_code, ["file-unreadable"])
    for command in (
        ("plan", "--out"),
        ("bundle", "inventory"),
        ("subscription", "show", "demo", "--raw", "--output"),
    ):
        ended = site.run("--json", *command, site.root / "nowhere" / "file")
        assert (ended.code, ended.codes) == (InputError.exit_code, ["input-invalid"]), ended
        assert not (site.root / "nowhere").exists()
