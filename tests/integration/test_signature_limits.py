# SPDX-License-Identifier: Apache-2.0
"""Messages made to cost much: refused at once, and in little memory, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from coppice.testing.authority import Authority, Identity, KeyType
from coppice.testing.forgery import as_multipart, as_opaque, as_pem, craft, tlv

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.threat("T28")]
MIB = 1024 * 1024
MOST_SECONDS, MOST_MIB = 1.0, 100
CHILD = """
import json, re, sys, time
from coppice.errors import TrustError
from coppice.formats.cms import open_message

with open(sys.argv[1], "rb") as stream:
    message = stream.read()
started, code = time.process_time(), None
try:
    open_message(message)
except TrustError as problem:
    code = problem.code
seconds = time.process_time() - started
# Not `getrusage`: its peak is the parent's where that was higher before the program was started.
with open("/proc/self/status") as status:
    kib = int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1])
print(json.dumps({"code": code, "seconds": seconds, "kib": kib}))
"""


@pytest.fixture(scope="module")
def jane() -> Identity:
    return Authority.create("Example CA").issue("Jane Doe", key_type=KeyType.RSA_2048)


def signed_data(content: bytes, certificates: bytes = b"", signers: bytes = b"\x31\x02\x30\x00") -> bytes:
    """Return signed data of which nothing is well but the outermost shape."""
    inner = tlv(
        0x30,
        b"\x02\x01\x01\x31\x00",
        tlv(0x30, bytes.fromhex("06092a864886f70d010701"), content),
        certificates,
        signers,
    )
    return tlv(0x30, bytes.fromhex("06092a864886f70d010702"), tlv(0xA0, inner))


def multipart(jane: Identity) -> bytes:
    return as_multipart(b"{}", craft(b"{}", jane, detached=True))


CASES: dict[str, tuple[str, Callable[[Identity], bytes]]] = {
    "longer than any message may be": ("list-signature-form", lambda _: b"Content-Type: x\n\n" + b"x" * (25 * MIB)),
    "body longer than any list may be": (
        "list-signature-form",
        lambda j: as_multipart(b"{" + b" " * (16 * MIB) + b"}", craft(b"{}", j, detached=True)),
    ),
    "content longer than any list may be": ("list-signature-form", lambda j: craft(b" " * (16 * MIB + 1), j)),
    "a thousand certificates": ("list-signature-form", lambda j: craft(b"{}", j, certificates=[j] * 1000)),
    "a thousand certificates in base64": (
        "list-signature-form",
        lambda j: as_opaque(craft(b"{}", j, certificates=[j] * 1000)),
    ),
    "ten megabytes of white space in base64": (
        "list-signature-form",
        lambda j: as_opaque(craft(b"{}", j)) + b" " * 10_000_000,
    ),
    "white space between all signs of base64": (
        "list-signature-form",
        lambda _: b"Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n\n" + b"A\n" * (11 * MIB),
    ),
    "a PEM block of white space": (
        "list-signature-form",
        lambda _: b"-----BEGIN PKCS7-----\n" + b"\n" * (20 * MIB) + b"-----END PKCS7-----\n",
    ),
    "a header of a megabyte": ("list-unsigned", lambda j: b"X-Padding: " + b"x" * 1_000_000 + b"\n" + multipart(j)),
    "a header of folded lines": (
        "list-signature-form",
        lambda j: b"Content-Type: multipart/signed;" + b"\n a=b;" * 1_000_000 + b"\n\n" + multipart(j),
    ),
    "nothing but boundaries": (
        "list-signature-form",
        lambda _: b"Content-Type: multipart/signed; boundary=B\n\n" + b"--B\n" * (4 * MIB),
    ),
    "nothing but lines that begin as a boundary": (
        "list-signature-form",
        lambda _: b"Content-Type: multipart/signed; boundary=B\n\n" + b"--Bx\n" * (3 * MIB),
    ),
    "one line of boundaries": (
        "list-signature-form",
        lambda _: b"Content-Type: multipart/signed; boundary=B\n\n" + b"--B" * (4 * MIB),
    ),
    "eight million empty certificates": (
        "list-signature-form",
        lambda _: signed_data(b"", tlv(0xA0, b"\x30\x00" * (8 * MIB))),
    ),
    "eight million empty signers": (
        "list-signature-form",
        lambda _: signed_data(b"", signers=tlv(0x31, b"\x30\x00" * (8 * MIB))),
    ),
    "content in millions of chunks": (
        "list-signature-form",
        lambda _: signed_data(tlv(0xA0, tlv(0x24, b"\x04\x01x" * (5 * MIB))), tlv(0xA0, b"\x30\x00")),
    ),
    "a hundred thousand levels": ("list-signature-form", lambda _: b"\x30\x80" * 100_000 + b"\0\0" * 100_000),
    "a length beyond all bounds": ("list-signature-form", lambda _: b"\x30\x84\xff\xff\xff\xff" + b"\0" * 1000),
    "signed attributes by the thousand": (
        "list-signature-form",
        lambda j: craft(b"{}", j, encode=lambda some: tlv(0xA0, *sorted(some * 2000))),
    ),
    "an attribute that is deep": (
        "list-signature-form",
        lambda j: craft(b"{}", j, encode=lambda some: tlv(0xA0, *sorted([*some, deep(3000)]))),
    ),
}


def deep(levels: int) -> bytes:
    made = b"\x05\x00"
    for _ in range(levels):
        made = tlv(0x30, made)
    return made


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_within_a_second_and_a_hundred_mebibytes(name: str, jane: Identity, tmp_path: Path) -> None:
    code, make = CASES[name]
    (tmp_path / "message").write_bytes(make(jane))
    child = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "message"], check=True, capture_output=True, text=True, timeout=120
    )
    said = json.loads(child.stdout)
    assert said["code"] == code
    assert said["seconds"] < MOST_SECONDS
    # The message itself is in memory once, whatever is done with it; its reader sets the limit for that.
    assert said["kib"] / 1024 < MOST_MIB, said


def test_a_list_as_long_as_may_be_is_read_in_every_form(jane: Identity, tmp_path: Path) -> None:
    payload = b'{"x": "' + b"x" * (16 * MIB - 16) + b'"}\r\n'
    for number, message in enumerate(
        (
            as_multipart(payload, craft(payload, jane, detached=True)),
            as_opaque(craft(payload, jane)),
            as_pem(craft(payload, jane)),
            craft(payload, jane, chunk_bytes=1024),
        )
    ):
        place = tmp_path / str(number)
        place.write_bytes(message)
        child = subprocess.run(
            [sys.executable, "-c", CHILD, place], check=True, capture_output=True, text=True, timeout=120
        )
        said = json.loads(child.stdout)
        assert said["code"] is None
        assert said["seconds"] < MOST_SECONDS


def test_the_command_line_refuses_them_as_fast(jane: Identity, tmp_path: Path) -> None:
    anchors = Authority.create("Example CA").write_to(tmp_path / "anchors")
    jane.write_to(tmp_path, "jane")
    home = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "COPPICE_STATE_DIRECTORY": str(tmp_path / "state")}
    for number, name in enumerate(("longer than any message may be", "eight million empty certificates")):
        code, make = CASES[name]
        message = tmp_path / f"{number}.list"
        message.write_bytes(make(jane))
        argv = [sys.executable, "-m", "coppice", "--json", "imagelist", "verify", message]
        argv += ["--anchors", anchors, "--endorser-certificate", tmp_path / "jane.pem"]
        ended = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60, env=home)
        assert ended.returncode == 5
        assert [error["code"] for error in json.loads(ended.stdout)["errors"]] == [code]
