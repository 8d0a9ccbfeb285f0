# SPDX-License-Identifier: Apache-2.0
"""A list from the catalogue to a directory: previews, versions, kills, ends, sets, references, retirement."""

from __future__ import annotations

from datetime import timedelta

import pytest

from coppice.catalogue.catalogue import Catalogue
from coppice.catalogue.endorsers import Endorsers
from coppice.catalogue.history import PublicationHistory
from coppice.catalogue.model import PublicationState
from coppice.errors import (
    ExistsError,
    InconsistentListError,
    InputError,
    LockedError,
    NotFoundError,
    PublicationError,
    StateError,
    TamperedListError,
    UnreadableFileError,
    VersionExistsError,
    WrongSignerError,
)
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.formats.list_difference import ImageDifference
from coppice.imagelist.publication import PlacePublisher
from coppice.model.checksum import Checksum
from coppice.schedule.lock import run_lock
from coppice.subscription.model import PinnedEndorser, TrustPolicy
from coppice.testing.desk import Desk
from coppice.workflows.delete import delete_appliance

pytestmark = pytest.mark.integration
DAY = timedelta(days=1)


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "desk")
    desk.add("alpha", "1", b"alpha 1")
    desk.create()
    desk.selections.select("general", "alpha")
    yield desk
    desk.close()


def test_a_preview_shows_what_would_change_and_uses_up_nothing(desk):
    first = desk.preview()
    assert (first.difference.before, first.difference.after) == (None, "1")
    assert not (desk.root / "web").exists()
    desk.publish()
    desk.add("alpha", "2", b"alpha 2")
    found = desk.preview()
    [image] = found.difference.images
    assert (image.kind, image.before, image.after) == (ImageDifference.NEW_VERSION, "1", "2")
    assert desk.selections.get("general").last_version == "1"
    assert desk.listed() == {"Alpha": "1"}
    assert desk.publish().signed.content.version == "2"
    assert desk.preview().difference.is_renewal


def test_a_preview_needs_no_key(desk):
    for path in (desk.root / "keys").iterdir():
        path.unlink()
    assert desk.preview().content.version == "1"
    with pytest.raises(UnreadableFileError):
        desk.publish()
    assert desk.selections.get("general").last_version is None


def test_history_tells_of_every_version_and_keeps_its_bytes(desk):
    desk.publish()
    desk.publish()
    newest, oldest = desk.history.entries("general")
    assert (newest.version, oldest.version) == ("2", "1")
    assert newest.state is PublicationState.PUBLISHED
    assert newest.published_at is not None
    assert "Jane" in newest.signer
    assert desk.history.message(newest.number) == (desk.root / "web/general.list").read_bytes()
    assert [image.version for image in newest.images] == ["1"]
    told = [event for event in Journal(desk.database).latest() if event.kind is EventKind.LIST_PUBLISHED]
    assert [event.facts["version"] for event in told] == ["1", "2"]


def test_killed_between_signature_and_publication_the_next_one_takes_the_next_version(desk, monkeypatch):
    def killed(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PlacePublisher, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            desk.publish()
    assert [(entry.version, entry.state) for entry in desk.history.entries("general")] == [
        ("1", PublicationState.SIGNED)
    ]
    assert desk.publish().signed.content.version == "2"
    assert [str(entry.state) for entry in desk.history.entries("general")] == ["published", "signed"]


def test_killed_after_publication_the_next_run_finds_that_it_went_out(desk, monkeypatch):
    def killed(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PublicationHistory, "record_published", killed)
        with pytest.raises(KeyboardInterrupt):
            desk.publish()
    assert desk.listed() == {"Alpha": "1"}
    desk.publish()
    assert [str(entry.state) for entry in desk.history.entries("general")] == ["published", "published"]


def test_two_runs_do_not_publish_one_list_at_once(desk):
    with run_lock(desk.settings.state_directory / "locks/publish-general.lock"), pytest.raises(LockedError):
        desk.publish()
    stale = desk.selections.get("general")
    desk.publish()
    with pytest.raises(StateError, match="meanwhile"):
        desk.history.record_signed(
            stale,
            version="1",
            message=b"",
            payload=Checksum.of(b""),
            signer="",
            endorser="jane",
            uri="",
            images=[],
            at=desk.clock.now(),
            expires=desk.clock.now(),
        )


def test_what_another_catalogue_published_meanwhile_is_not_gone_back_behind(desk, tmp_path):
    other = Desk(tmp_path / "other")
    other.selections.create(
        "general",
        title="General",
        description="",
        source="x",
        endorser="jane",
        publisher="web",
        identifier=desk.selections.get("general").identifier,
        keys={"version": "41"},
    )
    other.publish()
    desk.publish()
    (desk.root / "web/general.list").write_bytes((other.root / "web/general.list").read_bytes())
    other.close()
    with pytest.raises(StateError, match="version 42"):
        desk.publish()
    with desk.selections.edit("general") as draft:
        draft.set("version", "42")
    assert desk.publish().signed.content.version == "43"


def test_another_list_is_not_written_over(desk, tmp_path):
    other = Desk(tmp_path / "other")
    other.create()
    other.publish()
    (desk.root / "web").mkdir()
    (desk.root / "web/general.list").write_bytes((other.root / "web/general.list").read_bytes())
    other.close()
    for act in (desk.preview, desk.publish):
        with pytest.raises(ExistsError, match="another list"):
            act()


def test_an_unreadable_published_list_is_said_and_replaced(desk):
    (desk.root / "web").mkdir()
    (desk.root / "web/general.list").write_bytes(b"nonsense")
    found = desk.preview()
    assert found.difference is None
    assert "cannot be read" in found.warnings[0]
    assert "cannot be read" in desk.publish().warnings[0]
    assert desk.listed() == {"Alpha": "1"}


def test_a_place_that_fails_leaves_the_version_used_up_and_the_list_as_it_was(desk, monkeypatch):
    desk.publish()

    def refused(*_arguments, **_options):
        raise PublicationError("no")

    with monkeypatch.context() as patch:
        patch.setattr(PlacePublisher, "publish", refused)
        with pytest.raises(PublicationError):
            desk.publish()
    assert desk.read().version == "1"
    assert desk.publish().signed.content.version == "3"


def test_a_missing_image_is_found_before_a_version_is_used_up(desk):
    desk.selections.get("general").versions[0].path.unlink()
    for act in (desk.preview, desk.publish):
        with pytest.raises(UnreadableFileError, match="alpha 1"):
            act()
    assert desk.selections.get("general").last_version is None


def test_another_endorser_signs_when_bound_and_is_the_only_one_named(desk):
    with pytest.raises(InconsistentListError, match="not bound"):
        desk.publish(signer="joe")
    desk.publish()
    desk.selections.bind_endorser("general", "joe")
    report = desk.publish(signer="joe")
    [endorser] = report.signed.content.endorsers
    assert endorser.name == "Joe"
    assert any("until now" in warning for warning in report.warnings)
    assert any("until now" in warning for warning in desk.preview().warnings)


def test_a_certificate_that_ends_before_the_list_is_warned_of(desk):
    with desk.selections.edit("general") as draft:
        draft.set("lifetime", 3000)
    assert any("certificate" in warning for warning in desk.publish().warnings)


def test_a_discontinued_appliance_ends_on_its_date_and_leaves_after_it(desk):
    desk.add("beta", "1", b"beta 1")
    desk.selections.select("general", "beta")
    desk.publish()
    ends = (desk.clock.now() + 3 * DAY).replace(microsecond=0)
    dry = desk.appliances.discontinue("alpha", on=ends, successor="beta", dry_run=True)
    assert dry.ends == {"1": ends}
    assert desk.appliances.get("alpha").discontinued_on is None
    desk.appliances.discontinue("alpha", on=ends, successor="beta")
    with pytest.raises(StateError, match="discontinued"):
        desk.add("alpha", "2", b"alpha 2")
    assert desk.add("alpha", "1", b"alpha 1").version == "1"
    desk.publish()
    [alpha, beta] = desk.read().images
    assert alpha.expires == ends
    assert alpha.extra == {"coppice:successor": beta.identifier}
    desk.clock.advance(4 * DAY)
    report = desk.publish()
    assert desk.listed() == {"Beta": "1"}
    assert any("not listed any more" in warning for warning in report.warnings)
    desk.appliances.resume("alpha")
    desk.publish()
    assert desk.listed() == {"Alpha": "1", "Beta": "1"}


def test_an_end_that_nobody_was_told_of_is_told_once(desk):
    desk.publish()
    desk.appliances.set_expiry("alpha", "1", desk.clock.now() - DAY)
    assert any("once more" in warning for warning in desk.publish().warnings)
    [image] = desk.read().images
    assert image.expires < desk.clock.now()
    desk.publish()
    assert desk.listed() == {}


def test_an_earlier_end_of_a_version_is_not_put_off(desk):
    soon, later = desk.clock.now() + 2 * DAY, desk.clock.now() + 9 * DAY
    desk.appliances.set_expiry("alpha", "1", soon)
    desk.appliances.discontinue("alpha", on=later)
    desk.publish()
    assert desk.read().images[0].expires == soon.replace(microsecond=0)


def stack(desk):
    for name in ("database", "portal"):
        desk.add(name, "1", f"{name} 1".encode())
    desk.sets.create("stack", title="Stack")
    desk.sets.add("stack", "database", "portal")


def test_a_set_is_published_whole_replaced_whole_and_taken_back_whole(desk):
    stack(desk)
    desk.selections.bind_set("general", "stack")
    with pytest.raises(InconsistentListError, match="no release"):
        desk.publish()
    assert desk.selections.get("general").last_version is None
    desk.sets.release("stack")
    desk.publish()
    desk.add("database", "2", b"database 2")
    desk.add("portal", "2", b"portal 2")
    desk.publish()
    assert desk.listed() == {"Alpha": "1", "Database": "1", "Portal": "1"}
    desk.sets.release("stack")
    desk.publish()
    assert desk.listed() == {"Alpha": "1", "Database": "2", "Portal": "2"}
    made = desk.sets.roll_back("stack")
    assert (made.version, made.members_of) == ("3", "1")
    desk.publish()
    assert desk.listed() == {"Alpha": "1", "Database": "1", "Portal": "1"}
    members = [image for image in desk.read().images if image.extra]
    identifier = desk.sets.get("stack").identifier
    told = {"coppice:set": identifier, "coppice:set_version": "3", "coppice:set_size": 2}
    assert [image.extra for image in members] == [told] * 2


def test_a_set_without_one_of_its_images_is_not_published_at_all(desk):
    stack(desk)
    desk.sets.release("stack")
    desk.selections.bind_set("general", "stack")
    desk.sets.get("stack").releases[-1].members[1].path.unlink()
    with pytest.raises(UnreadableFileError, match="portal 1"):
        desk.publish()
    assert desk.selections.get("general").last_version is None


def test_the_parts_of_a_set_end_together(desk):
    stack(desk)
    desk.sets.release("stack")
    desk.selections.bind_set("general", "stack")
    ends = (desk.clock.now() + 5 * DAY).replace(microsecond=0)
    desk.sets.expire("stack", ends)
    desk.publish()
    assert {image.title: image.expires == ends for image in desk.read().images} == {
        "Alpha": False,
        "Database": True,
        "Portal": True,
    }
    sooner = ends - DAY
    desk.appliances.discontinue("portal", on=sooner)
    desk.publish()
    assert {image.expires for image in desk.read().images if image.title != "Alpha"} == {sooner}


def test_an_appliance_is_in_a_list_once(desk):
    stack(desk)
    desk.sets.release("stack")
    desk.selections.bind_set("general", "stack")
    with pytest.raises(InconsistentListError, match="once"):
        desk.selections.select("general", "portal")
    assert [version.appliance.name for version in desk.selections.get("general").versions] == ["alpha"]
    desk.sets.add("stack", "alpha")
    desk.sets.release("stack")
    with pytest.raises(InconsistentListError, match="once"):
        desk.publish()


def test_own_keys_and_what_marketplaces_ask_for_are_listed(desk):
    with desk.appliances.edit("alpha") as draft:
        draft.set("mpuri", "https://mp.example.org/image/77:{version}/")
        draft.set("ad:appid", "77")
        draft.set("user.fullname", "Jane Doe")
        draft.set("recommended_cores", "4")
        draft.set("minimum_disk_bytes", "10 GiB")
        draft.set("example:tier", ["gold"])
    with desk.selections.edit("general") as draft:
        draft.set("vo", "vo.example.org")
        draft.set("swid", "12")
        draft.set("example:owner", "physics")
    desk.publish()
    content = desk.read()
    [image] = content.images
    assert (content.vo, content.swid, content.extra) == ("vo.example.org", "12", {"example:owner": "physics"})
    assert (image.mpuri, image.appliance_id) == ("https://mp.example.org/image/77:1/", "77")
    assert image.user.full_name == "Jane Doe"
    assert image.base_mpuri is not None
    assert image.expires is not None
    assert image.requirements.recommended_cores == 4
    assert image.requirements.minimum_disk_bytes == 10 * 1024**3
    assert image.extra == {"example:tier": ["gold"]}


def test_old_image_files_go_when_no_list_has_named_them_for_long_enough(desk):
    desk.publish()
    [old] = (desk.root / "web/images").iterdir()
    desk.add("alpha", "2", b"alpha 2")
    assert desk.publish().retired == ()
    assert old.exists()
    asked = []

    def retire(self, *, unnamed_since, monitor):
        asked.append(unnamed_since)
        return ("old",)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlacePublisher, "retire", retire)
        assert desk.publish().retired == ("old",)
    assert timedelta(0) <= desk.clock.now() - 7 * DAY - asked[0] < timedelta(minutes=1)


def test_what_cannot_be_tidied_up_does_not_fail_a_publication(desk):
    def retire(self, *, unnamed_since, monitor):
        raise PublicationError("the place is closed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlacePublisher, "retire", retire)
        assert "the place is closed" in desk.publish().warnings[-1]
    assert desk.listed() == {"Alpha": "1"}


def test_a_list_is_taken_over_with_its_identifiers_and_published_by_reference(desk, tmp_path):
    desk.publish()
    message = (desk.root / "web/general.list").read_bytes()
    before = desk.read()
    heir = Desk(tmp_path / "heir", host="heir")
    (heir.root / "anchors").rename(heir.root / "own-anchors")
    (desk.root / "anchors").rename(heir.root / "anchors")
    jane = Endorsers(desk.database).get("jane")
    Endorsers(heir.database).add(jane)
    dry = heir.import_file(message, dry_run=True)
    assert dry.intake.added == ("alpha 1",)
    with pytest.raises(NotFoundError):
        heir.selections.get("taken")
    report = heir.import_file(message)
    assert report.warnings == ()
    assert report.intake.created
    again = heir.import_file(message)
    assert again.intake.added == ()
    assert not again.intake.created
    heir.publish("taken")
    after = heir.read("taken")
    assert (after.identifier, after.version) == (before.identifier, "2")
    [image], [old] = after.images, before.images
    assert (image.identifier, image.version, image.uri, image.checksum) == (
        old.identifier,
        old.version,
        old.uri,
        old.checksum,
    )
    assert not (heir.root / "web/images").exists()
    assert [str(entry.state) for entry in heir.history.entries("taken")] == ["published", "imported"]
    heir.close()


def test_a_list_that_is_refused_is_not_taken_over(desk):
    desk.publish()
    message = (desk.root / "web/general.list").read_bytes()
    with pytest.raises(ExistsError, match="general"):
        desk.import_file(message)
    with pytest.raises(TamperedListError):
        desk.import_file(message.replace(b'"hv:size"', b'"hv:sizf"'), name="general")
    joe = Endorsers(desk.database).get("joe")
    trust = TrustPolicy(
        endorsers=(PinnedEndorser(subject=joe.subject, issuer=joe.issuer),), anchors=desk.root / "anchors"
    )
    with pytest.raises(WrongSignerError):
        desk.import_file(message, name="general", trust=trust)


def test_an_older_or_another_version_is_not_taken_over(desk):
    desk.publish()
    first = (desk.root / "web/general.list").read_bytes()
    desk.publish()
    with pytest.raises(StateError, match="version 2"):
        desk.import_file(first, name="general")


def test_nothing_that_is_needed_is_deleted(desk):
    arguments = {"settings": desk.settings, "database": desk.database, "clock": desk.clock}
    with pytest.raises(StateError, match="carried by the image list general"):
        delete_appliance("alpha", **arguments)
    desk.add("alpha", "2", b"alpha 2")
    old = desk.settings.state_directory / f"catalogue/images/{Checksum.of(b'alpha 1').hexdigest}.raw"
    dry = delete_appliance("alpha", version="1", dry_run=True, **arguments)
    assert dry.files == (old,)
    assert old.exists()
    desk.publish()
    with pytest.raises(StateError):
        delete_appliance("alpha", version="2", **arguments)
    assert delete_appliance("alpha", version="1", **arguments).files == (old,)
    assert not old.exists()
    with pytest.raises(StateError, match="only version"):
        delete_appliance("alpha", version="2", **arguments)
    desk.selections.deselect("general", "alpha")
    with pytest.raises(StateError, match="published"):
        delete_appliance("alpha", **arguments)
    desk.publish()
    delete_appliance("alpha", **arguments)
    with pytest.raises(NotFoundError):
        desk.appliances.get("alpha")


def test_a_deleted_version_never_comes_back_with_other_bytes(desk):
    arguments = {"settings": desk.settings, "database": desk.database, "clock": desk.clock}
    desk.add("alpha", "2", b"alpha 2")
    desk.selections.deselect("general", "alpha")
    delete_appliance("alpha", version="2", **arguments)
    assert [version.version for version in Catalogue(desk.database).versions("alpha")] == ["1"]
    with pytest.raises(VersionExistsError, match="existed with other content"):
        desk.add("alpha", "2", b"other")
    assert desk.add("alpha", "2", b"alpha 2").version == "2"


def test_a_published_list_is_deleted_only_by_force_and_goes_on_where_it_ended(desk):
    desk.publish()
    identifier = desk.selections.get("general").identifier
    with pytest.raises(StateError, match="is published"):
        desk.selections.delete("general")
    assert desk.selections.delete("general", force=True, dry_run=True).version == "1"
    assert desk.selections.delete("general", force=True).version == "1"
    with pytest.raises(NotFoundError):
        desk.selections.get("general")
    assert [entry.version for entry in desk.history.entries("general")] == ["1"]
    revived = desk.selections.create(
        "general",
        title="General",
        description="",
        source="x",
        endorser="jane",
        publisher="web",
        identifier=identifier.upper(),
    )
    assert (revived.identifier, revived.last_version) == (identifier, "1")


def test_an_image_at_the_place_is_verified_before_a_list_names_it_by_reference(desk):
    desk.publish()
    message = (desk.root / "web/general.list").read_bytes()
    arguments = {"settings": desk.settings, "database": desk.database, "clock": desk.clock}
    desk.selections.delete("general", force=True)
    desk.clock.advance(40 * DAY)
    delete_appliance("alpha", **arguments)
    desk.clock.advance(-40 * DAY)
    desk.import_file(message, name="general")
    assert desk.publish().signed.content.version == "2"
    [image] = (desk.root / "web/images").iterdir()
    image.chmod(0o644)
    image.write_bytes(b"alpha X")
    with pytest.raises(InputError, match="other bytes"):
        desk.publish()


def test_a_version_keeps_its_description_when_a_person_gave_it(desk):
    with desk.appliances.edit("alpha") as draft:
        draft.set("title", "By hand")
    desk.add("alpha", "2", b"alpha 2")
    assert desk.appliances.get("alpha").title == "By hand"
    with desk.appliances.edit("alpha") as draft:
        draft.unset("title")
    desk.add("alpha", "3", b"alpha 3")
    assert desk.appliances.get("alpha").title == "Alpha"
