# SPDX-License-Identifier: Apache-2.0
"""Fuzz the reader of signed messages: only declared errors, and nothing is taken that was not signed.

    python tests/fuzz/fuzz_smime.py -max_total_time=300 [CORPUS] [options of libFuzzer]

Without CORPUS a throw-away one is used. Seeds are honest and odd messages, signed anew in each run; what they say is
the same in all runs, so that a corpus of an earlier run keeps its value.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

with atheris.instrument_imports(include=["coppice", "asn1crypto"]):
    from coppice.errors import CoppiceError
    from coppice.formats.cms import open_message
    from coppice.formats.cms_sign import sign
    from coppice.formats.limits import ListLimits
    from coppice.testing.authority import Authority, KeyType
    from coppice.testing.forgery import as_multipart, as_opaque, as_pem, craft

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = ListLimits(size_bytes=64 * 1024)
OPTIONS = ("-max_len=32768", "-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1")
PAYLOAD = b'{"hv:imagelist": {\n"dc:title": "Example list"}}\n'
CANONICAL = PAYLOAD.replace(b"\n", b"\r\n")
WITH_HEADER = b"Content-Type: text/plain\r\n\r\n" + CANONICAL
SIGNED = {PAYLOAD, CANONICAL}
WORDS = (
    "multipart/signed",
    "application/pkcs7-mime",
    "application/x-pkcs7-signature",
    "text/plain",
    "base64",
    "binary",
    "Content-Type: ",
    "Content-Transfer-Encoding: ",
    "MIME-Version: 1.0",
    "boundary=",
    "micalg=",
    "-----BEGIN PKCS7-----",
    "-----END PKCS7-----",
    "-----BEGIN CMS-----",
)


def seeds() -> Iterator[bytes]:
    """Yield messages in each form that is read, and in some that are not."""
    authority = Authority.create("Example CA")
    jane = authority.issue("Jane Doe")
    rsa = authority.issue("Jane Doe", key_type=KeyType.RSA_2048)
    for identity in (jane, rsa):
        yield sign(PAYLOAD, certificate=identity.certificate, key=identity.key)
        detached, opaque = craft(CANONICAL, identity, detached=True), craft(PAYLOAD, identity)
        yield as_multipart(CANONICAL, detached)
        yield as_opaque(opaque)
        yield as_pem(opaque)
        yield opaque
    yield as_multipart(WITH_HEADER, craft(WITH_HEADER, jane, detached=True))
    yield craft(PAYLOAD, rsa, pss=True)
    yield craft(PAYLOAD, jane, digest="sha384")
    yield PAYLOAD


def one_input(data: bytes) -> None:
    """Open ``data``; whatever is not a `CoppiceError`, or not signed by anyone, ends the run."""
    try:
        opened = open_message(data, limits=LIMITS)
    except CoppiceError:
        return
    assert opened.payload in SIGNED, opened.payload


def prepare(corpus: Path) -> Path:
    """Write the seeds into ``corpus`` and return the dictionary, beside it."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    dictionary = corpus.parent / f"{corpus.name}.dict"
    dictionary.write_text("".join(f'"{word}"\n' for word in WORDS))
    return dictionary


def main() -> int:
    """Run libFuzzer; it ends the process itself."""
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    corpora = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if not corpora:
        with tempfile.TemporaryDirectory() as directory:
            return subprocess.call([sys.executable, __file__, *options, str(Path(directory) / "corpus")])
    dictionary = prepare(Path(corpora[0]))
    atheris.Setup([sys.argv[0], *OPTIONS, f"-dict={dictionary}", *options, *corpora], one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
