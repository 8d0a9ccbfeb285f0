# SPDX-License-Identifier: Apache-2.0
"""The commands on endorsers, as a person at a terminal and as a timer without one meets them."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization

from coppice.cli.main import main
from coppice.errors import SignerExpiredError, SignerUsageError
from coppice.formats.cms import open_message
from coppice.testing.authority import Authority

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
PHRASE = "correct horse"
CREATE = ("imagelist", "create", "demo", "--endorser", "jane", "--publisher", "web", "--title", "Demo")
UNFIT = {
    "expired": SignerExpiredError.code,
    "early": SignerExpiredError.code,
    "usage": SignerUsageError.code,
    "authority": SignerUsageError.code,
}


class CommandLine:
    """``coppice`` as a process of its own, with and without a terminal."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.capsys = root, capsys
        (root / "coppice.toml").write_text(
            f'state_directory = "{root}/state"\n[publishers.web]\ndriver = "directory"\npath = "{root}/web"\n'
        )
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(root), "TERM": "xterm"}

    def argv(self, *words: object) -> list[str]:
        options = ("--config", self.root / "coppice.toml", "--json")
        return [sys.executable, "-m", "coppice", *map(str, (*options, *words))]

    def run(self, *words: object) -> tuple[int, Any]:
        """Run in this process, which has no terminal."""
        self.capsys.readouterr()
        code = main(self.argv(*words)[3:])
        said = self.capsys.readouterr()
        assert PHRASE not in said.out + said.err
        return code, json.loads(said.out)

    def run_apart(self, *words: object) -> tuple[int, Any]:
        """Run as a process of its own, without a terminal."""
        ended = subprocess.run(
            self.argv(*words),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            start_new_session=True,
        )
        return ended.returncode, json.loads(ended.stdout)

    def type(self, typed: bytes, *words: object) -> tuple[int, Any, bytes]:
        """Run on a terminal of its own, and type when something is asked; standard output goes to a pipe."""
        reading, writing = os.pipe()
        child, terminal = pty.fork()
        if child == 0:
            os.dup2(writing, 1)
            os.execve(sys.executable, self.argv(*words), self.environ)  # noqa: S606 - the program under test
        os.close(writing)
        seen = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                seen += os.read(terminal, 4096)
            except OSError as problem:
                assert problem.errno == errno.EIO  # noqa: PT017 - how Linux tells the end of a terminal
                break
            if b"Type " in seen and typed:
                os.write(terminal, typed)
                typed = b""
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        os.close(terminal)
        _, status = os.waitpid(child, 0)
        assert PHRASE not in said
        return os.waitstatus_to_exitcode(status), json.loads(said), seen


@pytest.fixture
def authority() -> Authority:
    return Authority.create("Example CA")


@pytest.fixture
def command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(tmp_path, capsys)


@pytest.fixture
def encrypted(authority: Authority, tmp_path: Path) -> list[object]:
    """The options that name an endorser whose key is encrypted."""
    certificate, key = authority.issue("Jane Doe").write_to(tmp_path, "jane", passphrase=PHRASE.encode())
    return ["--certificate", certificate, "--key", key, "--email", "jane@example.org"]


def test_a_passphrase_is_typed_unseen_each_time(
    command_line: CommandLine, encrypted: list[object], tmp_path: Path
) -> None:
    words = ("endorser", "add", "jane", *encrypted, "--ask-passphrase")
    code, said, seen = command_line.type(f"{PHRASE}\n".encode(), *words)
    assert (code, said["data"]["passphrase_source"]) == (0, "prompt"), said
    assert f"Type the passphrase of {tmp_path}/jane.key: ".encode() in seen
    assert PHRASE.encode() not in seen
    assert (
        command_line.run("imagelist", "create", "demo", "--endorser", "jane", "--publisher", "web", "--title", "x")[0]
        == 0
    )
    code, said, _ = command_line.type(f"{PHRASE}\n".encode(), "imagelist", "publish", "demo")
    assert code == 0, said
    assert open_message((tmp_path / "web/demo.list").read_bytes()).digest == "sha256"


@pytest.mark.parametrize(("typed", "said"), [(b"wrong\n", "another one"), (b"\n", "empty"), (b"\x04", "nothing was")])
def test_what_is_typed_wrongly_is_refused_once(
    command_line: CommandLine, encrypted: list[object], typed: bytes, said: str
) -> None:
    code, envelope, seen = command_line.type(typed, "endorser", "add", "jane", *encrypted, "--ask-passphrase")
    assert (code, envelope["errors"][0]["code"]) == (3, "credential-unusable")
    assert said in envelope["errors"][0]["message"]
    assert seen.count(b"Type ") == 1


def test_an_interrupt_while_typing_ends_the_command(command_line: CommandLine, encrypted: list[object]) -> None:
    code, envelope, _ = command_line.type(b"\x03", "endorser", "add", "jane", *encrypted, "--ask-passphrase")
    assert (code, envelope["errors"][0]["code"]) == (130, "interrupted")


def test_without_a_terminal_nobody_is_asked_and_nothing_waits(
    command_line: CommandLine, encrypted: list[object]
) -> None:
    before = time.monotonic()
    code, said = command_line.run_apart("endorser", "add", "jane", *encrypted, "--ask-passphrase")
    assert (code, said["errors"][0]["code"]) == (3, "credential-unusable")
    assert "no terminal" in said["errors"][0]["message"]
    assert time.monotonic() - before < 30


def test_a_variable_or_a_file_does_without_a_person(
    command_line: CommandLine, encrypted: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("endorser", "add", "jane", *encrypted, "--passphrase-variable", "JANE_PHRASE")
    code, said = command_line.run(*words)
    assert (code, said["errors"][0]["code"]) == (3, "credential-unusable")
    monkeypatch.setenv("JANE_PHRASE", PHRASE)
    code, said = command_line.run(*words)
    assert (code, said["messages"]) == (0, []), said
    (tmp_path / "phrase").write_text(PHRASE)
    code, said = command_line.run("endorser", "edit", "jane", "--set", f"passphrase_file={tmp_path}/phrase")
    assert (code, said["data"]["passphrase_source"]) == (0, "file"), said
    assert any("chmod 600" in each for each in said["messages"])


def test_an_endorser_is_shown_tried_changed_and_forgotten(
    command_line: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    jane = authority.issue("Jane Doe")
    certificate, key = jane.write_to(tmp_path, "jane")
    words = ("--certificate", certificate, "--key", key, "--email", "jane@example.org")
    assert command_line.run("endorser", "add", "jane", *words)[0] == 0
    assert command_line.run(*CREATE)[0] == 0
    code, said = command_line.run("endorser", "show", "jane", "--check")
    assert code == 0
    assert (said["data"]["subject"], said["data"]["lists"]) == (str(jane.subject), ["demo"])
    assert said["data"]["certificate_expires"]
    code, said = command_line.run("endorser", "remove", "jane")
    assert (code, said["errors"][0]["code"]) == (12, "exists-already")

    joe_certificate, joe_key = authority.issue("Joe").write_to(tmp_path, "joe")
    code, said = command_line.run("endorser", "edit", "jane", "--set", f"certificate={joe_certificate}")
    assert (code, said["errors"][0]["code"]) == (3, "file-unreadable"), "the key is still Jane's"
    assignments = ("--set", f"certificate={joe_certificate}", "--set", f"key={joe_key}", "--set", "digest=sha512")
    code, said = command_line.run("endorser", "edit", "jane", *assignments)
    assert code == 0
    assert any("demo will be signed as" in each and "CN=Jane Doe refuse" in each for each in said["messages"]), said
    code, said = command_line.run("endorser", "list")
    assert [(each["name"], each["digest"]) for each in said["data"]] == [("jane", "sha512")]
    assert command_line.run("imagelist", "publish", "demo")[0] == 0
    assert open_message((tmp_path / "web/demo.list").read_bytes()).digest == "sha512"


def test_a_certificate_exchanged_for_somebody_elses_signs_nothing(
    command_line: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue("Jane Doe").write_to(tmp_path, "jane")
    words = ("--certificate", certificate, "--key", key, "--email", "jane@example.org")
    assert command_line.run("endorser", "add", "jane", *words)[0] == 0
    assert command_line.run(*CREATE)[0] == 0
    authority.issue("Mallory").write_to(tmp_path, "jane")
    for words in (("imagelist", "publish", "demo"), ("endorser", "show", "jane", "--check")):
        code, said = command_line.run(*words)
        assert (code, said["errors"][0]["code"]) == (5, "list-endorser-mismatch"), said
    assert not (tmp_path / "web/demo.list").exists()


@pytest.mark.parametrize(("kind", "error"), UNFIT.items())
def test_a_certificate_with_which_nothing_may_be_signed_is_not_kept(
    command_line: CommandLine, authority: Authority, tmp_path: Path, kind: str, error: str
) -> None:
    identity = {
        "expired": authority.expired,
        "early": authority.not_yet_valid,
        "usage": authority.wrong_usage,
        "authority": lambda: authority.issue_authority("Sub CA").identity,
    }[kind]()
    certificate, key = identity.write_to(tmp_path, "jane")
    words = ("--certificate", certificate, "--key", key, "--email", "jane@example.org")
    code, said = command_line.run("endorser", "add", "jane", *words)
    assert (code, said["errors"][0]["code"]) == (5, error)
    assert command_line.run("endorser", "list")[1]["data"] == []


def test_the_address_comes_from_the_certificate_where_it_names_one(
    command_line: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    from cryptography import x509

    names = x509.SubjectAlternativeName([x509.DNSName("example.org"), x509.RFC822Name("jane@example.org")])
    certificate, key = authority.issue("Jane Doe", extensions=[(names, False)]).write_to(tmp_path, "jane")
    code, said = command_line.run("endorser", "add", "jane", "--certificate", certificate, "--key", key)
    assert (code, said["data"]["email"], said["data"]["creator"]) == (0, "jane@example.org", "Jane Doe")
    certificate, key = authority.issue("Joe").write_to(tmp_path, "joe")
    code, said = command_line.run("endorser", "add", "joe", "--certificate", certificate, "--key", key)
    assert (code, "--email" in str(said["errors"][0]["resolution"])) == (3, True)


@pytest.mark.parametrize(
    "words",
    [
        ("--certificate", "x"),
        ("--certificate", "x", "--key", "y", "--pkcs12", "z"),
        ("--pkcs12", "z", "--passphrase-file", "f", "--ask-passphrase"),
        ("--pkcs12", "z", "--passphrase-file", "f", "--passphrase-variable", "V"),
    ],
)
def test_options_that_contradict_each_other_are_a_mistake_of_the_command_line(
    command_line: CommandLine, words: tuple[str, ...]
) -> None:
    code, said = command_line.run("endorser", "add", "jane", *words)
    assert (code, said["errors"][0]["code"]) == (2, "usage")


def test_a_key_of_another_format_than_pem_is_told(
    command_line: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    jane = authority.issue("Jane Doe")
    certificate, _ = jane.write_to(tmp_path, "jane")
    der = tmp_path / "jane.der"
    der.write_bytes(
        jane.key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    code, said = command_line.run("endorser", "add", "jane", "--certificate", certificate, "--key", der)
    assert (code, said["errors"][0]["code"]) == (3, "file-unreadable")
