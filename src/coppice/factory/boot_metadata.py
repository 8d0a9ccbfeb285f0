# SPDX-License-Identifier: Apache-2.0
"""A cloud's metadata service for one machine: one connection, from standard input to standard output.

QEMU starts it for each connection of the guest, as inetd would: nothing listens anywhere. It answers with what a file
says, by path, and knows nothing else. It is run by its file's name, and so imports nothing of the product.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import BinaryIO

_LONGEST_LINE = 8192
_MOST_HEADERS = 100
_MOST_REQUESTS = 1000
_TOKEN = b"boot-test"


def serve(pages: dict[str, str], requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each request until the other side has no more, or says what is no request."""
    for _ in range(_MOST_REQUESTS):
        words = requests.readline(_LONGEST_LINE).decode("latin-1").split()
        if len(words) != 3 or not _skip_headers(requests):  # noqa: PLR2004 - method, path, version
            return
        method, path, _ = words
        status, body = _answer(pages, method, path)
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        answers.write(head.encode("latin-1") + (b"" if method == "HEAD" else body))
        answers.flush()


def _answer(pages: dict[str, str], method: str, path: str) -> tuple[str, bytes]:
    if method == "PUT" and path == "/latest/api/token":
        return "200 OK", _TOKEN
    if method not in {"GET", "HEAD"}:
        return "405 Method Not Allowed", b""
    page = pages.get(path, pages.get(path.rstrip("/")))
    if page is None:
        return "404 Not Found", b"there is no such page\n"
    return "200 OK", page.encode()


def _skip_headers(requests: BinaryIO) -> bool:
    for _ in range(_MOST_HEADERS):
        line = requests.readline(_LONGEST_LINE)
        if not line.strip():
            return bool(line)
    return False


if __name__ == "__main__":
    serve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), sys.stdin.buffer, sys.stdout.buffer)
