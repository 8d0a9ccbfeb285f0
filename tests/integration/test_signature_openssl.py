# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from coppice.errors import TrustError, UntrustedSignerError
from coppice.subscription.anchors import load_anchors
from coppice.subscription.rules import verify_list
from coppice.testing.authority import Authority, Identity, KeyType
from coppice.testing.forgery import as_multipart, as_opaque, craft
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("Example CA")


@pytest.fixture(scope="module")
def endorsers(authority: Authority) -> dict[str, Identity]:
    return {
        "jane": authority.issue("Jane Doe"),
        "jane-rsa": authority.issue("Jane Doe", key_type=KeyType.RSA_2048),
        "jane-p384": authority.issue("Jane Doe", key_type=KeyType.P384),
        "expired": authority.expired(),
        "early": authority.not_yet_valid(),
        "revoked": authority.revoked_endorser(),
        "stranger": Authority.create("Example CA").issue("Jane Doe"),
        "weak": authority.issue("Weak", key_type=KeyType.RSA_1024),
    }


def openssl_accepts(tool: str, message: bytes, directory: Path, *, crl: bool = False) -> bool:
    (directory / "message").write_bytes(message)
    (directory / "anchors.bundle").write_bytes(
        (directory / "ca.pem").read_bytes() + (directory / "ca.crl.pem").read_bytes()
    )
    argv = ["openssl", tool, "-verify", "-in", "message", "-inform", "SMIME", "-CAfile", "anchors.bundle"]
    argv += ["-no-CApath", "-no-CAstore", "-purpose", "any", "-out", "out", *(["-crl_check_all"] if crl else [])]
    completed = subprocess.run(argv, cwd=directory, capture_output=True, check=False, timeout=60)
    return completed.returncode == 0


def coppice_accepts(message: bytes, publisher: Simulator, directory: Path) -> bool:
    try:
        verify_list(
            message,
            subscription=publisher.subscription(directory),
            anchors=load_anchors(directory),
            last=None,
            now=datetime.now(UTC),
        )
    except TrustError:
        return False
    return True


@pytest.mark.threat("T27")
@pytest.mark.parametrize("tool", ["cms", "smime"])
@pytest.mark.parametrize("signer", ["jane", "jane-rsa", "jane-p384"])
def test_openssl_accepts_what_is_signed_here(
    tool: str, signer: str, authority: Authority, endorsers: dict[str, Identity], tmp_path: Path
) -> None:
    authority.write_to(tmp_path)
    publisher = Simulator.create(authority, endorser=endorsers[signer])
    publisher.add_image()
    assert openssl_accepts(tool, publisher.message(), tmp_path)
    assert (tmp_path / "out").read_bytes().replace(b"\r\n", b"\n") == publisher.payload()


@pytest.mark.threat("T2")
@pytest.mark.threat("T3")
@pytest.mark.threat("T4")
@pytest.mark.parametrize("signer", ["jane", "jane-rsa", "jane-p384"])
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-binary"],
        ["-text"],
        ["-nodetach"],
        ["-nodetach", "-stream"],
        ["-nodetach", "-outform", "DER"],
        ["-nodetach", "-outform", "PEM"],
        ["-md", "sha384"],
        ["-md", "sha512"],
        ["-keyid"],
        ["-crlfeol"],
        ["-nosmimecap"],
        ["-certfile", "ca.pem"],
        ["-keyopt", "rsa_padding_mode:pss"],
    ],
    ids=" ".join,
)
def test_what_openssl_signs_is_accepted_here(
    options: list[str], signer: str, authority: Authority, endorsers: dict[str, Identity], tmp_path: Path
) -> None:
    if "-keyopt" in options and signer != "jane-rsa":
        # PSS is a way of RSA keys; the others sign with what they have.
        options = []
    authority.write_to(tmp_path)
    publisher = Simulator.create(authority, endorser=endorsers[signer])
    publisher.add_image()
    publisher.endorser.write_to(tmp_path, "jane")
    (tmp_path / "list.json").write_bytes(publisher.payload())
    argv = ["openssl", "cms", "-sign", "-in", "list.json", "-signer", "jane.pem", "-inkey", "jane.key", *options]
    message = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=True, timeout=60).stdout
    assert coppice_accepts(message, publisher, tmp_path)
    changed = message.replace(b"Example list", b"Exanple list")
    # Where the content is inside of base64, it does not show.
    assert changed == message or not coppice_accepts(changed, publisher, tmp_path)


@pytest.mark.parametrize("options", [["-nodetach"], ["-binary"], []])
def test_what_openssl_smime_signs_is_accepted_here(
    options: list[str], authority: Authority, endorsers: dict[str, Identity], tmp_path: Path
) -> None:
    authority.write_to(tmp_path)
    publisher = Simulator.create(authority, endorser=endorsers["jane-rsa"])
    publisher.add_image()
    publisher.endorser.write_to(tmp_path, "jane")
    (tmp_path / "list.json").write_bytes(publisher.payload())
    argv = ["openssl", "smime", "-sign", "-in", "list.json", "-signer", "jane.pem", "-inkey", "jane.key", *options]
    message = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=True, timeout=60).stdout
    assert coppice_accepts(message, publisher, tmp_path)


def canonical(publisher: Simulator) -> bytes:
    return publisher.payload().replace(b"\n", b"\r\n")


# What to make, whether OpenSSL takes it, whether Coppice does.
TABLE: dict[str, tuple[Callable[[Simulator, dict[str, Identity]], bytes], bool, bool]] = {
    "honest": (lambda p, _: p.message(), True, True),
    "opaque": (lambda p, e: as_opaque(craft(p.payload(), e["jane"])), True, True),
    "tampered": (lambda p, _: p.tampered(), False, False),
    "unsigned": (lambda p, _: p.unsigned(), False, False),
    "expired signer": (lambda p, e: p.message(signer=e["expired"]), False, False),
    "early signer": (lambda p, e: p.message(signer=e["early"]), False, False),
    "revoked signer": (lambda p, e: p.message(signer=e["revoked"]), False, False),
    "signer of a false authority": (lambda p, e: p.message(signer=e["stranger"]), False, False),
    "no signer": (lambda p, e: as_opaque(craft(p.payload(), e["jane"], no_signer=True)), False, False),
    # Coppice is the stricter one from here on.
    "another signer": (lambda p, e: p.message(signer=e["jane-rsa"]), True, True),
    "two signers": (lambda p, e: as_opaque(craft(p.payload(), e["jane"], more_signers=[e["jane-rsa"]])), True, False),
    "no signed attributes": (
        lambda p, e: as_opaque(craft(p.payload(), e["jane"], signed_attributes=False)),
        True,
        False,
    ),
    "two contents": (
        lambda p, e: as_multipart(canonical(p), craft(canonical(p), e["jane"], embedded=b"{}")),
        True,
        False,
    ),
    "sha1": (lambda p, e: as_opaque(craft(p.payload(), e["jane"], digest="sha1")), True, False),
    "md5": (lambda p, e: as_opaque(craft(p.payload(), e["jane-rsa"], digest="md5")), True, False),
}


@pytest.mark.threat("T26")
@pytest.mark.parametrize("case", TABLE)
def test_both_verdicts_are_as_in_the_table(
    case: str, authority: Authority, endorsers: dict[str, Identity], tmp_path: Path
) -> None:
    make, by_openssl, by_coppice = TABLE[case]
    authority.write_to(tmp_path)
    publisher = Simulator.create(authority, endorser=endorsers["jane"])
    publisher.add_image()
    message = make(publisher, endorsers)
    assert openssl_accepts("cms", message, tmp_path, crl=True) is by_openssl
    assert coppice_accepts(message, publisher, tmp_path) is by_coppice


@pytest.mark.threat("T24")
def test_the_systems_certificates_are_never_trusted(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacker = Authority.create("Attacker CA")
    authority.write_to(tmp_path / "trusted")
    attacker.write_to(tmp_path / "system")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system/ca.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "system"))
    publisher = Simulator.create(attacker)
    with pytest.raises(UntrustedSignerError):
        verify_list(
            publisher.message(),
            subscription=publisher.subscription(tmp_path / "trusted"),
            anchors=load_anchors(tmp_path / "trusted"),
            last=None,
            now=datetime.now(UTC),
        )
