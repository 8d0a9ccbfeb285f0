# SPDX-License-Identifier: Apache-2.0
"""What ``gpgv`` says is read strictly: a verdict twice, or a word that is not known, is no verdict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import SignatureFormError
from coppice.subscription.gpgv_status import Verdict, read_status

pytestmark = pytest.mark.unit
FPR = "A" * 40
VALID = f"VALIDSIG {FPR} 2026-11-25 1795633401 0 4 0 22 8 01 {FPR}"
GOOD = f"GOODSIG {FPR[:16]} Jane"


def status(*lines: str) -> bytes:
    return "".join(f"[GNUPG:] {line}\n" for line in lines).encode()


def test_each_signature_has_one_verdict():
    found = read_status(
        status("PLAINTEXT 74 0 ", "NEWSIG", GOOD, VALID, "NEWSIG", f"ERRSIG {FPR[:16]} 1 10 01 1795633472 9 {FPR}"),
        "it",
    )
    assert [each.verdict for each in found] == [Verdict.GOOD, Verdict.UNKNOWN_KEY]
    assert found[0].primary == FPR
    assert found[1].primary == ""
    assert read_status(b"", "it") == ()


def test_the_earliest_expiry_of_a_key_counts():
    found = read_status(
        status("NEWSIG", "KEYEXPIRED 1768089600", "KEYEXPIRED 1768089000", f"EXPKEYSIG {FPR[:16]} J", VALID), "it"
    )
    assert found[0].key_expired_at is not None
    assert found[0].key_expired_at.timestamp() == 1768089000


@pytest.mark.parametrize(
    "lines",
    [
        [GOOD, VALID],
        ["NEWSIG"],
        ["NEWSIG", GOOD],
        ["NEWSIG", VALID],
        ["NEWSIG", GOOD, VALID, VALID],
        ["NEWSIG", GOOD, f"BADSIG {FPR[:16]} Jane", VALID],
        ["NEWSIG", f"BADSIG {FPR[:16]} Jane", VALID],
        ["NEWSIG", f"ERRSIG {FPR[:16]} 1 10 01 1795633472 9", GOOD, VALID],
        ["NEWSIG", f"ERRSIG {FPR[:16]} 1"],
        ["NEWSIG", GOOD, VALID.replace(FPR, "../../x")],
        ["NEWSIG", GOOD, VALID.replace("1795633401", "x")],
        ["NEWSIG", GOOD, VALID.replace("1795633401", "9" * 13)],
        ["NEWSIG", GOOD, VALID, "ERROR proc_pkt.plaintext 89_BAD_DATA"],
        ["NODATA 1"],
        ["UNEXPECTED 0"],
        ["FAILURE gpg-exit 33554433"],
    ],
)
def test_what_is_not_understood_is_refused(lines: list[str]):
    with pytest.raises(SignatureFormError):
        read_status(status(*lines), "it")


def test_a_line_without_the_prefix_is_refused():
    with pytest.raises(SignatureFormError):
        read_status(b"gpgv: hello\n", "it")


WORDS = st.sampled_from(
    ["NEWSIG", GOOD, VALID, f"BADSIG {FPR}", "KEYEXPIRED", "KEYEXPIRED 1", "ERRSIG a b c d e f", "x"]
)


@given(st.lists(WORDS, max_size=8).map(lambda lines: status(*lines)) | st.binary(max_size=200))
def test_nothing_that_is_said_breaks_the_reader(output: bytes):
    try:
        read_status(output, "it")
    except SignatureFormError:
        return
