# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist validate`` as people and programs call it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cli.main import main
from coppice.testing.authority import Authority
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.fixture
def publisher() -> Simulator:
    simulator = Simulator.create(Authority.create("Example CA"))
    simulator.add_image()
    return simulator


class Validate:
    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = directory / "some.list"
        self._capsys = capsys
        monkeypatch.setenv("HOME", str(directory))
        monkeypatch.setenv("COPPICE_STATE_DIRECTORY", str(directory / "state"))

    def text(self, content: bytes, *options: str) -> tuple[int, str, str]:
        self.file.write_bytes(content)
        code = main(["imagelist", "validate", *options, str(self.file)])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def json(self, content: bytes, *options: str) -> tuple[int, dict[str, Any]]:
        code, out, _ = self.text(content, "--json", *options)
        answer: dict[str, Any] = json.loads(out)
        return code, answer


@pytest.fixture
def validate(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Validate:
    return Validate(tmp_path, capsys, monkeypatch)


def test_a_signed_list_in_order_is_shown_with_its_signer(validate: Validate, publisher: Simulator) -> None:
    code, answer = validate.json(publisher.message())
    assert (code, answer["status"], answer["errors"]) == (0, "success", [])
    assert answer["data"]["signer"] == "/DC=org/DC=example/CN=Jane Doe"
    assert (answer["data"]["valid"], answer["data"]["problems"]) == (True, [])
    assert answer["data"]["identifier"] == publisher.identifier


def test_a_plain_list_in_order_is_shown(validate: Validate, publisher: Simulator) -> None:
    code, out, err = validate.text(publisher.payload())
    assert (code, err) == (0, "")
    assert "Example list, version 1" in out
    assert "Debian 12" in out


@pytest.mark.parametrize("signed", [True, False])
def test_every_problem_of_a_list_is_told_with_its_place(
    validate: Validate, publisher: Simulator, *, signed: bool
) -> None:
    document = publisher.document()
    del document["hv:imagelist"]["dc:title"]
    document["hv:imagelist"]["hv:images"][0]["hv:image"]["hv:size"] = "many"
    payload = json.dumps(document).encode()
    content = publisher.message(payload=payload) if signed else payload
    code, answer = validate.json(content)
    assert code == 3
    assert answer["status"] == "error"
    assert answer["data"]["problems"] == [
        {"path": "$.hv:imagelist.dc:title", "message": "it is missing"},
        {
            "path": "$.hv:imagelist.hv:images[0].hv:image.hv:size",
            "message": "a whole number from 1 on is needed, not 'many'",
        },
    ]
    [error] = answer["errors"]
    assert error["code"] == "document-invalid"
    assert "2 problems" in error["message"]
    code, out, err = validate.text(content)
    assert code == 3
    assert "$.hv:imagelist.dc:title" in out
    assert "hv:image.hv:size" in out
    assert "document-invalid" in err


def test_a_bad_entry_leaves_the_rest_to_be_shown(validate: Validate, publisher: Simulator) -> None:
    publisher.add_image(title="Broken")["hv:size"] = "many"
    code, answer = validate.json(publisher.payload())
    assert code == 3
    assert [image["title"] for image in answer["data"]["images"]] == ["Debian 12"]
    assert len(answer["data"]["unreadable"]) == 1


def test_the_lenient_profile_is_named_to_be_granted(validate: Validate, publisher: Simulator) -> None:
    document = publisher.document()
    del document["hv:imagelist"]["hv:endorser"]
    payload = json.dumps(document).encode()
    assert validate.json(payload)[0] == 3
    assert validate.json(payload, "--profile", "strict")[0] == 3
    code, answer = validate.json(payload, "--profile", "lenient")
    assert (code, answer["data"]["profile"], answer["data"]["valid"]) == (0, "lenient", True)
    assert validate.json(payload, "--profile", "loose")[0] == 2


def test_a_list_that_was_changed_after_signing_is_refused_by_its_signature(
    validate: Validate, publisher: Simulator
) -> None:
    code, answer = validate.json(publisher.tampered())
    assert (code, [each["code"] for each in answer["errors"]]) == (5, ["list-tampered"])


def test_the_settings_bound_what_is_read(
    validate: Validate, publisher: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.add_image()
    monkeypatch.setenv("COPPICE_LISTS__MAXIMUM_IMAGES", "1")
    code, answer = validate.json(publisher.payload())
    assert (code, answer["data"]["problems"][0]["message"]) == (3, "more than 1 images")


@pytest.mark.threat("T77")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"\xff\xfe{\x00}\x00",
        b"{",
        b"[" * 100_000,
        b'{"a": 1, "a": 2}',
        b'{"hv:imagelist": {"dc:title": "\\ud800", "x": NaN}}',
        b'{"hv:imagelist": {"dc:title": "\\u001b[2J\\u202e"}}',
        b"\x30\x82\xff\xff",
        b"-----BEGIN PKCS7-----\n####\n-----END PKCS7-----\n",
        b"Content-Type: multipart/signed\n\n",
        b"x" * 30_000_000,
    ],
)
def test_hostile_files_have_a_code_and_no_traceback(validate: Validate, content: bytes) -> None:
    code, out, err = validate.text(content)
    assert code in {3, 5}
    assert "Traceback" not in out + err
    assert "\x1b[2J" not in out + err
    assert validate.json(content)[1]["errors"][0]["code"]


def test_a_file_that_is_not_there_is_named(validate: Validate, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["imagelist", "validate", "--json", str(validate.file)])
    answer = json.loads(capsys.readouterr().out)
    assert (code, answer["errors"][0]["code"]) == (3, "file-unreadable")
