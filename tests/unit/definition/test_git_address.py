# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.definition.git_address import GitAddress, is_plain_part
from coppice.definition.git_program import Network, git_environment
from coppice.errors import DefinitionSourceError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "scheme", "url", "ref", "path"),
    [
        ("git+https://h.example/a.git", "https", "https://h.example/a.git", "", ""),
        ("git+https://h.example:8443/a/b.git#v1.4:x/y", "https", "https://h.example:8443/a/b.git", "v1.4", "x/y"),
        ("git+https://h.example/~me/a#feature/new", "https", "https://h.example/~me/a", "feature/new", ""),
        ("git+ssh://git@h.example/a.git#main", "ssh", "ssh://git@h.example/a.git", "main", ""),
        ("git+ssh://[fd00::1]:22/a#:x", "ssh", "ssh://[fd00::1]:22/a", "", "x"),
        ("git+file:///srv/git/a#main:x/", "file", "file:///srv/git/a", "main", "x"),
    ],
)
def test_an_address_is_read(text, scheme, url, ref, path):
    assert GitAddress.parse(text) == GitAddress(scheme=scheme, url=url, ref=ref, path=path)


def test_an_address_is_written_as_it_is_read():
    for text in ("git+https://h/a", "git+https://h/a#main", "git+https://h/a#main:x/y", "git+https://h/a#:x"):
        assert str(GitAddress.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "https://h.example/a",
        "git+http://h.example/a",
        "git+ext::sh -c touch% /tmp/x",
        "git+git://h.example/a",
        "git+fd::17",
        "git+https://user:secret@h.example/a",
        "git+https://user@h.example/a",
        "git+ssh://git:secret@h.example/a",
        "git+ssh://-oProxyCommand=x/a",
        "git+ssh://git@-oProxyCommand=x/a",
        "git+ssh://-l@h.example/a",
        "git+https://h.example",
        "git+https://h.example/",
        "git+https://h.example/a?x=1",
        "git+https://h.example/../a",
        "git+https://h.example/a b",
        "git+https://h.example/a\n",
        "git+https://h.example/$(id)",
        "git+https://h.example//a",
        "git+file://host/srv/a",
        "git+file:///srv/../etc",
        "git+file:relative",
        "git+https://h.example/a#",
        "git+https://h.example/a#--upload-pack=x",
        "git+https://h.example/a#-b",
        "git+https://h.example/a#main..other",
        "git+https://h.example/a#main~1",
        "git+https://h.example/a#main^{tree}",
        "git+https://h.example/a#@{-1}",
        "git+https://h.example/a#a:../b",
        "git+https://h.example/a#a:b/../../c",
        "git+https://h.example/a#a:.git/config",
        "git+https://h.example/a#a:b:c",
        "git+https://h.example/a#x.lock",
        "git+https://h.example/a#.x/y",
        "git+https://h.example/a#x//y",
        "git+https://h.example/" + "a" * 1000,
        "git+https://h.example/a#m:" + "a/" * 20,
    ],
)
def test_what_could_be_taken_for_something_else_is_no_address(text):
    with pytest.raises(DefinitionSourceError):
        GitAddress.parse(text)


@given(st.text(max_size=80), st.sampled_from(["https://h/a", "ssh://h/a", "file:///a"]), st.booleans())
def test_any_text_is_an_address_that_is_plain_or_refused(text, start, is_fragment):
    try:
        found = GitAddress.parse(f"git+{start}{'#' if is_fragment else '/'}{text}")
    except DefinitionSourceError:
        return
    for part in (found.url, found.ref, found.path):
        assert part.isascii()
        assert not part.startswith("-")
        assert not any(each in part for each in (" ", "\n", "\0", ";", "$", "`", "'", '"', "\\"))
    assert ".." not in found.ref
    assert ".." not in found.path.split("/")
    assert GitAddress.parse(str(found)) == found


def test_a_source_is_called_as_its_folder_where_that_can_be_a_name():
    assert GitAddress.parse("git+https://h/Web.git").suggested_name() == "web"
    assert GitAddress.parse("git+https://h/a.git#main:x/site").suggested_name() == "site"
    assert GitAddress.parse("git+https://h/_a").suggested_name() is None


def test_only_a_whole_commit_cannot_move():
    assert GitAddress.parse(f"git+https://h/a#{'0' * 40}").is_commit
    assert not GitAddress.parse(f"git+https://h/a#{'0' * 39}").is_commit


@pytest.mark.parametrize("part", ["..", ".", "", ".git", ".GIT", ".git.", "a/b", "a\0", "a\n", "ä", "a:b", "a\\b"])
def test_a_part_of_a_path_that_means_something_is_not_plain(part):
    assert not is_plain_part(part)


@pytest.mark.threat("T93")
def test_git_gets_an_environment_that_asks_nobody_and_knows_one_transport(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("SECRET", "canary")
    network = Network(proxy="http://proxy:3128", no_proxy=("a", "b"), ssh_agent="/agent", authorities=tmp_path / "pem")
    https = git_environment("https", tmp_path, network)
    assert (https["GIT_ALLOW_PROTOCOL"], https["GIT_TERMINAL_PROMPT"], https["HOME"]) == ("https", "0", str(tmp_path))
    assert (https["https_proxy"], https["no_proxy"]) == ("http://proxy:3128", "a,b")
    assert {"GIT_DIR", "SECRET", "SSH_AUTH_SOCK"}.isdisjoint(https)
    ssh = git_environment("ssh", tmp_path, network)
    assert (ssh["GIT_ALLOW_PROTOCOL"], ssh["SSH_AUTH_SOCK"]) == ("ssh", "/agent")
    assert {"https_proxy", "GIT_SSL_CAINFO"}.isdisjoint(ssh)
    assert "BatchMode=yes" in ssh["GIT_SSH_COMMAND"]
    assert "StrictHostKeyChecking=yes" in ssh["GIT_SSH_COMMAND"]
