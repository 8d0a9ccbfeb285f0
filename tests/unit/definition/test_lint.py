# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import date

import pytest

from coppice.definition.lint import RULES, Severity, lint
from coppice.definition.read import resolve_definition

pytestmark = pytest.mark.unit

TODAY = date(2026, 11, 26)
BASE = """\
[appliance]
title = "Base"
description = "A base."
[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"
[build]
disk-size = "4 GiB"
user = "debian"
"""


def found(root, text, **files):
    folder = root / "tiny"
    folder.mkdir()
    (folder / "appliance.toml").write_text(BASE + text)
    for name, content in files.items():
        (folder / name).write_text(content)
    return [(each.rule.code, each.origin.line, each.message) for each in lint(resolve_definition(root, "tiny"), TODAY)]


def codes(root, text, **files):
    return [code for code, _, _ in found(root, text, **files)]


def laid(content):
    return f"[[file]]\npath = '/etc/x'\ncontent = '''\n{content}'''\n"


def script(content, more=""):
    test = "[[test]]\nname = 't'\nscript = 'true'\n"
    return f"{test}[[provisioner]]\nname = 'p'\nkind = 'shell'\nsource = 's'\n{more}", {"s": content}


def test_a_sound_definition_has_no_findings(tmp_path):
    text, files = script("#!/bin/sh\nset -eu\nsha256sum -c sums\ncurl -fO http://example.org/x\napt-get clean\n")
    assert found(tmp_path, f"{text}[[user]]\nname = 'w'\nsudo = true\ncomment = 'Runs backups'\n", **files) == []


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("private-key", "-----BEGIN OPENSSH PRIVATE KEY-----"),
        ("private-key", "-----BEGIN PRIVATE KEY-----"),
        ("private-key", "-----BEGIN PGP PRIVATE KEY BLOCK-----"),
        ("authorised-key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample"),
        ("authorised-key", "  - ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlz"),
        ("password", "root:$6$abcdefgh$0123456789abcdefghijklmn:1"),
        ("password", "x $y$j9T$abcdefghijkl$0123456789abcdef"),
        ("password", "echo root:toor | chpasswd"),
        ("password", "    plain_text_passwd: x"),
        ("password", "password = hunter22"),
        ("password-login", "PasswordAuthentication yes"),
        ("password-login", "  ssh_pwauth: true"),
        ("unverified-source", "deb [arch=amd64 trusted=yes] https://example.org/ x main"),
        ("unverified-source", "apt-get install --allow-unauthenticated x"),
        ("unverified-source", "gpgcheck = 0"),
        ("unverified-source", "curl -fsSk https://example.org/x"),
        ("unverified-source", "wget --no-check-certificate https://example.org/x"),
        ("plain-http", "curl -O http://example.org/x"),
        ("plain-http", "baseurl = http://example.org/x"),
        ("pipe-to-shell", "curl -fsSL https://example.org/x | sudo bash -s"),
        ("pipe-to-shell", "wget -qO- https://example.org/x | sh"),
    ],
)
def test_what_had_better_not_be_in_a_file_is_found_with_its_place(tmp_path, code, content):
    (only,) = found(tmp_path, laid(f"first\n{content}\n"))
    assert only[:2] == (code, 11)
    assert "line 2 of /etc/x" in only[2]


@pytest.mark.parametrize(
    "content",
    [
        "# password = hunter22",
        "password = ${secret}",
        'password = "$(cat /run/secret)"',
        "passwordless login, ssh-ed25519 is the kind of key",
        "-----BEGIN CERTIFICATE-----",
        "#PasswordAuthentication yes",
        "PasswordAuthentication no",
        "deb [signed-by=/x.gpg] https://example.org/ x main",
        "curl -fsS http://localhost/",
        "curl -fsS http://127.0.0.1:8080/",
        "curl -fsSL -o keys https://example.org/x",
        "see http://example.org/",
        "curl -O http://example.org/x && sha256sum -c x.sums",
        "gpgcheck = 1",
        "curl https://example.org/x | jq .",
    ],
)
def test_what_only_looks_like_it_is_not_found(tmp_path, content):
    assert codes(tmp_path, laid(content)) == []


@pytest.mark.parametrize("where", ["user-data", "test", "provisioner"])
def test_texts_are_searched_wherever_they_are(tmp_path, where):
    key = "-----BEGIN RSA PRIVATE KEY-----"
    said = {
        "user-data": (f"[contextualisation]\nuser-data = '{key}'\n", {}),
        "test": (f"[[test]]\nname = 't'\nscript = '{key}'\n", {}),
        "provisioner": script(key),
    }
    text, files = said[where]
    assert codes(tmp_path, text, **files) == ["private-key"]


@pytest.mark.parametrize(
    ("content", "more", "is_found"),
    [
        ("#!/bin/sh\na\nb\n", "", True),
        ("#!/usr/bin/env bash\na\nb\n", "", True),
        ("a\nb\n", "", True),
        ("a\nb\n", "interpreter = ['/bin/bash']\n", True),
        ("#!/bin/sh -e\na\nb\n", "", False),
        ("#!/bin/sh\n# why\nset -e\na\nb\n", "", False),
        ("#!/bin/bash\nset -euo pipefail\na\nb\n", "", False),
        ("#!/bin/bash\nset -o errexit\na\nb\n", "", False),
        ("a\nb\n", "interpreter = ['/bin/bash', '-eu']\n", False),
        ("#!/usr/bin/python3\na\nb\n", "", False),
        ("#!/usr/bin/env python3\na\nb\n", "", False),
        ("#!/bin/sh\n# one command alone is the script's end\na\n", "", False),
    ],
)
def test_a_shell_script_that_goes_on_after_a_failure_is_found(tmp_path, content, more, is_found):
    text, files = script(content, more)
    assert codes(tmp_path, text, **files) == (["errors-ignored"] if is_found else [])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[[file]]\npath = '/x'\ncontent = ''\nmode = '0666'\n", "world-writable"),
        ("[[file]]\npath = '/x'\ncontent = ''\nmode = '4755'\n", "setuid"),
        ("[[file]]\npath = '/etc/shadow'\ncontent = ''\n", "account-file"),
        ("[[file]]\npath = '/root/.ssh/authorized_keys'\ncontent = ''\n", "authorised-key"),
        ("[[user]]\nname = 'w'\nsudo = true\n", "sudo-reason"),
        ("[firewall]\nenabled = false\n", "no-firewall"),
        ("[firewall]\nopen = ['80/tcp']\n", "no-test"),
        ("[services]\nenabled = ['x.service']\n", "no-test"),
    ],
)
def test_what_leaves_a_door_open_is_found(tmp_path, text, code):
    assert codes(tmp_path, text) == [code]


@pytest.mark.parametrize(
    ("end", "expected"),
    [("2026-11-26", ["end-of-life"]), ("2026-11-27", ["end-of-life-near"]), ("2027-03-01", [])],
)
def test_the_end_of_a_system_is_told_before_and_after(tmp_path, end, expected):
    (tmp_path / "tiny").mkdir()
    text = BASE.replace("[build]", f"end-of-life = {end}\n[build]")
    (tmp_path / "tiny" / "appliance.toml").write_text(text)
    assert [each.rule.code for each in lint(resolve_definition(tmp_path, "tiny"), TODAY)] == expected


def test_what_a_parent_says_is_found_at_the_parent(tmp_path):
    found(tmp_path, laid("password = hunter22"))
    (tmp_path / "child").mkdir()
    (tmp_path / "child" / "appliance.toml").write_text('from = "tiny"\n')
    findings = lint(resolve_definition(tmp_path, "child"), TODAY)
    assert [each.rule.code for each in findings] == ["password", "title-inherited"]
    assert all("/tiny/" in each.origin.source for each in findings)


def test_lines_without_end_that_a_pattern_nearly_matches_everywhere_are_searched_to_a_bound(tmp_path):
    assert codes(tmp_path, "[[file]]\npath = '/x'\nsource = 's'\n", s="url curl -" * 300_000) == []


def test_each_rule_is_known_by_its_code_and_gives_an_advice():
    assert {each.severity for each in RULES.values()} == set(Severity)
    assert all(rule.code == code and rule.advice.endswith(".") for code, rule in RULES.items())
