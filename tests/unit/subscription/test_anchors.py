# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from coppice.errors import TrustAnchorError
from coppice.subscription.anchors import load_anchors

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.testing.authority import Authority

pytestmark = pytest.mark.unit


def test_a_directory_gives_anchors_and_crls(authority: Authority, tmp_path: Path) -> None:
    authority.write_to(tmp_path)
    (tmp_path / "abcd1234.0").write_bytes(authority.identity.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "abcd1234.r0").write_bytes(authority.crl().public_bytes(Encoding.DER))
    (tmp_path / "notes.txt").write_text("not looked at")
    anchors = load_anchors(tmp_path)
    assert anchors.certificates == (authority.identity.certificate,)
    assert len(anchors.crls) >= 1
    assert anchors.problems == ()


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_single_file_is_enough(authority: Authority, tmp_path: Path, encoding: Encoding) -> None:
    path = tmp_path / "anchor"
    path.write_bytes(authority.identity.certificate.public_bytes(encoding))
    assert load_anchors(path).certificates == (authority.identity.certificate,)


def test_a_bundle_holds_certificates_and_crls(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "bundle.pem"
    path.write_bytes(
        b"some words\n"
        + authority.identity.certificate.public_bytes(Encoding.PEM)
        + authority.crl().public_bytes(Encoding.PEM)
    )
    anchors = load_anchors(path)
    assert (len(anchors.certificates), len(anchors.crls)) == (1, 1)


@pytest.mark.threat("T23")
def test_bad_entries_are_skipped_and_reported(authority: Authority, tmp_path: Path) -> None:
    authority.write_to(tmp_path)
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "dangling.0").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.pem").mkdir()
    (tmp_path / "junk.r0").write_bytes(b"\x30junk")
    anchors = load_anchors(tmp_path)
    assert anchors.certificates == (authority.identity.certificate,)
    assert len(anchors.problems) == 5


@pytest.mark.threat("T23")
def test_no_usable_anchor_is_an_error(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "only.crl.pem").write_bytes(authority.crl().public_bytes(Encoding.PEM))
    for path in (tmp_path, tmp_path / "missing", tmp_path / "only.crl.pem"):
        with pytest.raises(TrustAnchorError, match="no usable trust anchor"):
            load_anchors(path)
