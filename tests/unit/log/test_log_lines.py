# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import logging

import pytest

from coppice.log import LogFormat, configure, escape, get_logger, redact, redact_value

pytestmark = pytest.mark.unit

HOSTILE = [
    "a\nb",
    "a\r\nb",
    "a\rb",
    "\x1b[31mred\x1b[0m",
    "a\u2028b",
    "a\u2029b",
    "a\x85b",
    "a\x0bb",
    "\u202eevil",
    "\x00",
]


@pytest.fixture
def logged():
    root, ours = logging.getLogger(), logging.getLogger("coppice")
    before = (list(root.handlers), root.level, ours.level)

    def _logged(log_format, message, *args, fields=None, **more):
        stream = io.StringIO()
        configure("DEBUG", log_format, stream)
        get_logger("test").warning(message, *args, extra={"fields": fields or {}}, **more)
        return stream.getvalue()

    yield _logged
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


@pytest.mark.threat("T76")
@pytest.mark.parametrize("log_format", list(LogFormat))
@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_record_is_one_line_whatever_is_in_it(logged, log_format, hostile):
    text = logged(log_format, "title %s", hostile, fields={"title": hostile, hostile: 1})
    assert text.endswith("\n")
    assert len(text[:-1].splitlines()) == 1
    assert not any(character in text[:-1] for character in "\r\n\x1b\x00\x0b\x85\u2028\u2029\u202e")


@pytest.mark.threat("T76")
@pytest.mark.parametrize("log_format", list(LogFormat))
def test_a_traceback_does_not_make_a_second_line(logged, log_format):
    try:
        raise ValueError("one\ntwo")  # noqa: TRY301 - an exception with a traceback is what is logged
    except ValueError:
        text = logged(log_format, "failed", exc_info=True)
    assert len(text.splitlines()) == 1
    assert "ValueError" in text


def test_json_records_carry_their_fields(logged):
    record = json.loads(logged("json", "fetched", fields={"bytes": 12}))
    assert record["message"] == "fetched"
    assert record["fields"] == {"bytes": 12}
    assert record["logger"] == "coppice.test"
    assert record["time"].endswith("Z")


@pytest.mark.threat("T93")
@pytest.mark.parametrize("log_format", list(LogFormat))
@pytest.mark.parametrize(
    "text",
    [
        "password=canary-9731",
        'passphrase: "canary-9731 with a blank"',
        "Authorization: Bearer canary-9731",
        "authorization=Basic canary-9731",
        "https://user:canary-9731@host/path",
        "https://canary-9731@host/path",
        '{"os_token": "canary-9731"}',
        "OS_PASSWORD=canary-9731",
        "fetching https://h/x?token=canary-9731&y=1",
        "Set-Cookie: session=canary-9731; Path=/",
        "X-Auth-Token: canary-9731",
    ],
)
def test_secrets_do_not_reach_the_log(logged, log_format, text):
    assert "canary-9731" not in logged(log_format, "%s", text)
    assert "canary-9731" not in logged(log_format, "x", fields={"request": text})


@pytest.mark.threat("T93")
@pytest.mark.parametrize("key", ["password", "OS_PASSWORD", "api-token", "secret", "Authorization", "db.passphrase"])
def test_fields_named_like_secrets_are_redacted(logged, key):
    assert "canary-9731" not in logged("json", "x", fields={key: "canary-9731", "in": {key: ["canary-9731"]}})


def test_what_is_no_secret_is_left_as_it_is():
    for text in ("https://host/path@2x", "the password file is missing", "key=value"):
        assert redact(text) == text
    assert redact_value("password_file", "/run/p") == "/run/p"


def test_plain_text_is_not_escaped():
    assert escape("Größe: 8 GiB ✓") == "Größe: 8 GiB ✓"


def test_configuring_again_replaces(logged):
    logged("human", "x")
    second = logged("human", "y")
    assert second.count("\n") == 1
