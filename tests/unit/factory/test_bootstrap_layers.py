# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from coppice.errors import BuildError, StorageError
from coppice.factory.bootstrap.changes import EMPTY, Script, with_folders
from coppice.factory.bootstrap.layers import (
    Stage,
    adopt_layers,
    apply_layer,
    find_content,
    keep_layer,
    layer_name,
    layer_paths,
)
from coppice.factory.bootstrap.listing import Kind, Node, guest_path, read_listing, write_listing

pytestmark = pytest.mark.unit

EPOCH = 1_700_000_000
OPAQUE = {"SCHILY.xattr.trusted.overlay.opaque": "y"}


def member(name, content=b"", kind=tarfile.REGTYPE, **facts):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    info.mtime = EPOCH - 1000
    for key, value in facts.items():
        setattr(info, key, value)
    return info, content


def folder(name, **facts):
    return member(name, kind=tarfile.DIRTYPE, mode=0o755, **facts)


def gone(name):
    return member(name, kind=tarfile.CHRTYPE)


@pytest.fixture
def stage(tmp_path):
    place = tmp_path / "staging"
    place.mkdir()
    return Stage(place, lambda path: path.startswith("/skipped/"), ("/var/status",))


def layer(path, *members):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def applied(tmp_path, stage, before, *members, number=1):
    return apply_layer(before, layer(tmp_path / "layer.tar", *members), epoch=EPOCH, number=number, stage=stage)


def commands(stage, before, after):
    script = Script(EPOCH, lambda name: Path("/staged") / name[:6])
    script.change(before, after)
    return script.commands


def base(tmp_path, stage):
    return applied(
        tmp_path,
        stage,
        {},
        folder("./"),
        folder("./etc/"),
        member("./etc/shadow", b"root:*:", mode=0o640, gid=42),
        member("./bin", kind=tarfile.SYMTYPE, linkname="usr/bin"),
        member("./etc/twin", kind=tarfile.LNKTYPE, linkname="./etc/shadow"),
        folder("./old/"),
        member("./old/a", b"a"),
        number=0,
    )


def test_a_tree_becomes_commands_with_owner_mode_and_time(tmp_path, stage):
    said = commands(stage, EMPTY, base(tmp_path, stage))
    digest = base(tmp_path, stage)["/etc/shadow"].digest
    assert 'mkdir "/etc"' in said
    assert 'set_inode_field "/etc" "mode" "040755"' in said
    assert f'write "/staged/{digest[:6]}" "/etc/shadow"' in said
    assert 'set_inode_field "/etc/shadow" "mode" "0100640"' in said
    assert 'set_inode_field "/etc/shadow" "gid" "42"' in said
    assert f'set_inode_field "/etc/shadow" "mtime" "@{EPOCH - 1000}"' in said
    assert 'symlink "/bin" "usr/bin"' in said
    assert said.index('ln "/etc/shadow" "/etc/twin"') > said.index(f'write "/staged/{digest[:6]}" "/etc/shadow"')
    assert 'set_inode_field "/etc/shadow" "links_count" "2"' in said


def test_the_content_of_files_waits_under_its_digest_but_for_what_nobody_asks_for(tmp_path, stage):
    listing = applied(tmp_path, stage, {}, member("./etc/a", b"here"), member("./skipped/b", b"there"), number=0)
    assert stage.find(listing["/etc/a"].digest).read_bytes() == b"here"
    assert stage.find(listing["/skipped/b"].digest) is None


def test_a_large_file_is_staged_by_its_digest_too(tmp_path, stage):
    content = b"0123456789abcdef" * 150_000
    listing = applied(tmp_path, stage, {}, member("./large", content), number=0)
    assert stage.find(listing["/large"].digest).read_bytes() == content


def test_contents_that_were_asked_for_are_remembered_the_newest_last(tmp_path, stage):
    before = applied(tmp_path, stage, {}, member("./var/status", b"old"), number=0)
    applied(tmp_path, stage, before, member("./var/status", b"new"))
    assert stage.kept == {"/var/status": b"new"}


def test_a_layer_that_changes_nothing_touches_nothing(tmp_path, stage):
    before = base(tmp_path, stage)
    after = applied(tmp_path, stage, before, folder("./etc/"), member("./etc/shadow", b"root:*:", mode=0o640, gid=42))
    assert after == before
    assert list(after) == list(before)
    assert commands(stage, before, after) == []


def test_what_a_layer_changes_is_written_last_and_what_it_takes_away_goes_first(tmp_path, stage):
    before = base(tmp_path, stage)
    after = applied(tmp_path, stage, before, gone("./old"), member("./etc/new", b"new"))
    assert "/old/a" not in after
    assert after["/etc/new"].layer == 1
    said = commands(stage, before, after)
    assert said[:2] == ['rm "/old/a"', 'rmdir "/old"']
    assert said[2].endswith('"/etc/new"')


def test_a_directory_that_was_removed_and_made_anew_shows_nothing_of_the_old_one(tmp_path, stage):
    before = base(tmp_path, stage)
    after = applied(tmp_path, stage, before, folder("./old/", pax_headers=OPAQUE), member("./old/b", b"b"))
    assert "/old/a" not in after
    assert "/old/b" in after
    said = commands(stage, before, after)
    assert 'rmdir "/old"' not in said
    assert 'rm "/old/a"' in said


def test_only_the_mode_is_set_where_only_the_mode_changed(tmp_path, stage):
    before = base(tmp_path, stage)
    after = applied(tmp_path, stage, before, member("./old/a", b"a", mode=0o600))
    assert commands(stage, before, after) == ['set_inode_field "/old/a" "mode" "0100600"']


def test_a_file_with_two_names_that_is_replaced_has_its_names_again(tmp_path, stage):
    before = base(tmp_path, stage)
    after = applied(
        tmp_path,
        stage,
        before,
        member("./etc/shadow", b"other", mode=0o640),
        member("./etc/twin", kind=tarfile.LNKTYPE, linkname="./etc/shadow"),
    )
    said = commands(stage, before, after)
    assert said[:2] == ['rm "/etc/twin"', 'rm "/etc/shadow"']
    assert said[-2:] == ['ln "/etc/shadow" "/etc/twin"', 'set_inode_field "/etc/shadow" "links_count" "2"']


def test_the_other_name_of_a_file_that_is_replaced_alone_keeps_the_old_content(tmp_path, stage):
    before = base(tmp_path, stage)
    after = applied(tmp_path, stage, before, member("./etc/shadow", b"other"))
    assert after["/etc/twin"] == before["/etc/shadow"]
    said = commands(stage, before, after)
    assert 'rm "/etc/twin"' in said
    assert f'write "/staged/{before["/etc/shadow"].digest[:6]}" "/etc/twin"' in said


def test_a_file_in_place_of_a_directory_takes_away_what_was_in_it(tmp_path, stage):
    before = base(tmp_path, stage)
    after = applied(tmp_path, stage, before, member("./old", b"file now"))
    assert "/old/a" not in after
    said = commands(stage, before, after)
    assert said[:2] == ['rm "/old/a"', 'rmdir "/old"']
    assert said[2].startswith("write ")


def test_capabilities_are_kept_and_other_attributes_are_not(tmp_path, stage):
    capability = b"\x01\x00\x00\x02\x00 ".decode("utf-8", errors="surrogateescape")
    headers = {"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "x"}
    after = applied(tmp_path, stage, {}, member("./ping", pax_headers=headers), number=0)
    attributes = [command for command in commands(stage, EMPTY, after) if command.startswith("ea_set")]
    assert len(attributes) == 1
    assert attributes[0].endswith('"/ping" "security.capability"')


def test_nothing_is_younger_than_the_release(tmp_path, stage):
    after = applied(tmp_path, stage, {}, member("./young", mtime=EPOCH + 5), number=0)
    assert after["/young"].mtime == EPOCH
    assert not [command for command in commands(stage, EMPTY, after) if "/young" in command and "mtime" in command]


def test_a_quote_in_a_name_is_doubled_and_a_line_break_refused(tmp_path, stage):
    listing = applied(tmp_path, stage, {}, member('./a"b'), number=0)
    assert any(command.endswith('"/a""b"') for command in commands(stage, EMPTY, listing))
    listing = applied(tmp_path, stage, {}, member("./a\nrm /etc/shadow"), number=0)
    with pytest.raises(BuildError, match="cannot be written"):
        commands(stage, EMPTY, listing)


@pytest.mark.parametrize("facts", [{"kind": tarfile.CHRTYPE, "devmajor": 1}, {"kind": tarfile.FIFOTYPE}])
def test_devices_and_pipes_are_refused(tmp_path, stage, facts):
    with pytest.raises(BuildError, match="neither a file"):
        applied(tmp_path, stage, {}, member("./etc/device", **facts))


def test_a_path_out_of_the_tree_is_refused():
    assert guest_path("./usr//bin/./x") == "/usr/bin/x"
    with pytest.raises(BuildError, match="leads out"):
        guest_path("./usr/../../etc/passwd")


@pytest.mark.parametrize("name", ["layer.tar", "000.tar.zst"])
def test_a_damaged_layer_is_a_build_error(tmp_path, stage, name):
    (tmp_path / name).write_bytes(b"nonsense" * 200)
    with pytest.raises(BuildError, match="damaged"):
        apply_layer({}, tmp_path / name, epoch=EPOCH, number=0, stage=stage)


def test_folders_that_lead_to_a_file_are_made_and_a_file_is_none():
    listing = dict(EMPTY)
    with_folders(listing, "/etc/ssh/sshd_config.d/x")
    assert list(listing) == ["/", "/etc", "/etc/ssh", "/etc/ssh/sshd_config.d"]
    listing["/etc/ssh"] = replace(listing["/etc/ssh"], kind=Kind.SYMLINK)
    with pytest.raises(BuildError, match="/etc/ssh is no directory"):
        with_folders(listing, "/etc/ssh/key")


def test_a_listing_is_read_as_it_was_written_in_its_order(tmp_path, stage):
    listing = {**base(tmp_path, stage), "/odd\udcff\n": Node(kind=Kind.FILE, capability="01", digest="x", layer=-1)}
    write_listing(tmp_path / "listing", listing)
    again = read_listing(tmp_path / "listing")
    assert again == listing
    assert list(again) == list(listing)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"nonsense",
        zstandard.compress(b"[1]\n"),
        zstandard.compress(b'["/a","f",420,0,0,0,0,"","","",0],["/b","f",420,0,0,0,0,"","","",0]\n'),
        zstandard.compress(b'["/a","f",420,0,0,0,0,""\n"","",0]\n'),
        zstandard.compress(b"[" * 100_000),
    ],
)
def test_a_damaged_listing_is_an_error(tmp_path, damage):
    (tmp_path / "listing").write_bytes(damage)
    with pytest.raises(StorageError, match="not the listing"):
        read_listing(tmp_path / "listing")


def test_a_child_has_its_parents_layers_whatever_becomes_of_the_parent(tmp_path, stage):
    parent, child = tmp_path / "parent", tmp_path / "child" / "tree"
    parent.mkdir()
    for number in (0, 1):
        tar = layer(tmp_path / "plain.tar", member(f"./{number}", b"%d" % number))
        keep_layer(tar, parent / layer_name(number))
    child.parent.mkdir()
    adopt_layers(parent, child)
    for path in layer_paths(parent):
        path.unlink()
    assert [path.name for path in layer_paths(child)] == ["000.tar.zst", "001.tar.zst"]
    listing = {}
    for number, path in enumerate(layer_paths(child)):
        listing = apply_layer(listing, path, epoch=EPOCH, number=number, stage=stage)
    assert list(listing) == ["/0", "/1"]
    with pytest.raises(BuildError, match="no tree to build upon"):
        adopt_layers(parent, tmp_path / "other")


def test_content_that_only_an_ancestor_has_is_found_in_its_layer(tmp_path, stage):
    tree = tmp_path / "tree"
    tree.mkdir()
    keep_layer(layer(tmp_path / "plain.tar", member("./etc/hosts", b"old hosts")), tree / layer_name(0))
    other = tmp_path / "other"
    other.mkdir()
    fresh = Stage(other, lambda _path: False)
    digest = stage.put(b"old hosts")
    assert find_content(tree, digest, fresh).read_bytes() == b"old hosts"
    with pytest.raises(BuildError, match="no layer"):
        find_content(tree, "0" * 64, fresh)


def test_what_is_looked_for_in_older_layers_is_not_taken_for_what_the_last_one_has(tmp_path, stage):
    tree = tmp_path / "tree"
    tree.mkdir()
    older = layer(tmp_path / "older.tar", member("./var/status", b"old"), member("./etc/hosts", b"hosts"))
    newer = layer(tmp_path / "newer.tar", member("./var/status", b"new"))
    for number, tar in enumerate((older, newer)):
        keep_layer(tar, tree / layer_name(number))
    apply_layer({}, newer, epoch=EPOCH, number=1, stage=stage)
    assert find_content(tree, hashlib.sha256(b"hosts").hexdigest(), stage).read_bytes() == b"hosts"
    assert stage.kept == {"/var/status": b"new"}
