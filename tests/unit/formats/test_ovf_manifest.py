# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from coppice.errors import ManifestError
from coppice.formats.ovf_manifest import check_signature, manifest_text, read_manifest
from coppice.testing.archives import manifest

pytestmark = pytest.mark.unit
FILES = [("vm.ovf", b"descriptor"), ("vm-disk1.vmdk", b"disk")]
MANIFEST = manifest(FILES)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def certificate_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "Packer"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "X")]
    )
    start = datetime(2020, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, start, start + timedelta(days=1))
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM)


def signed(key: rsa.RSAPrivateKey, content: bytes = MANIFEST, algorithm: str = "SHA256", name: str = "vm.mf") -> bytes:
    digest = {"SHA1": hashes.SHA1, "SHA256": hashes.SHA256, "SHA512": hashes.SHA512}[algorithm]()
    signature = key.sign(content, padding.PKCS1v15(), digest).hex()
    return f"{algorithm}({name})= {signature}\n".encode() + certificate_of(key)


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256", "SHA384", "SHA512"])
@pytest.mark.parametrize("form", ["{a}({f})= {d}\n", "{a} ({f}) = {d}\r\n", "{a}({f})={d}\n\n"])
def test_the_ways_in_which_tools_write_a_manifest_are_read(algorithm, form):
    digest = "A" + manifest(FILES[:1], algorithm).decode().split("= ")[1].strip()[1:]
    found = read_manifest(form.format(a=algorithm, f="vm.ovf", d=digest).encode(), name="vm.ova")
    assert found["vm.ovf"].algorithm == algorithm.lower()
    assert found["vm.ovf"].fits(digest.lower())
    assert not found["vm.ovf"].fits("0" * len(digest))


def test_what_is_written_is_read_again():
    digests = {name: entry.hexdigest for name, entry in read_manifest(MANIFEST, name="vm.ova").items()}
    assert manifest_text(digests) == MANIFEST


@pytest.mark.threat("T67")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no file"),
        (b"\n\n", "no file"),
        (MANIFEST + MANIFEST, "twice"),
        (b"MD5(vm.ovf)= " + b"0" * 32, "malformed"),
        (b"SHA256(vm.ovf)= " + b"0" * 63, "length"),
        (b"SHA256(vm.ovf)= " + b"g" * 64, "malformed"),
        (b"SHA256 vm.ovf = " + b"0" * 64, "malformed"),
        (b"\xff", "UTF-8"),
        (MANIFEST + b"\n" * 300_000, "bytes"),
        (MANIFEST + b"\x00", "malformed"),
    ],
)
def test_a_manifest_that_could_be_read_in_two_ways_is_refused(content, said):
    with pytest.raises(ManifestError, match=said):
        read_manifest(content, name="vm.ova")


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256", "SHA512"])
def test_a_right_signature_says_whose_it_is_though_nobody_vouches_for_it(rsa_key, algorithm):
    found = check_signature(signed(rsa_key, algorithm=algorithm), MANIFEST, "vm.mf", name="vm.ova")
    assert found == "O=X,CN=Packer"


def test_a_signature_by_an_elliptic_curve_is_checked_as_well():
    key = ec.generate_private_key(ec.SECP256R1())
    signature = key.sign(MANIFEST, ec.ECDSA(hashes.SHA256())).hex()
    content = f"SHA256(vm.mf)= {signature}\n".encode() + certificate_of(key)
    assert check_signature(content, MANIFEST, "vm.mf", name="vm.ova") == "O=X,CN=Packer"


def test_certificates_of_authorities_may_follow_the_signers(rsa_key):
    content = signed(rsa_key) + certificate_of(ec.generate_private_key(ec.SECP256R1()))
    assert check_signature(content, MANIFEST, "vm.mf", name="vm.ova") == "O=X,CN=Packer"


@pytest.mark.threat("T67")
def test_a_wrong_signature_is_refused(rsa_key):
    good = signed(rsa_key)
    other = rsa.generate_private_key(65537, 2048)
    line, _, rest = good.partition(b"\n")
    wrong = {
        "the manifest's signature is wrong": [
            (good, MANIFEST + b"\n"),
            (line + b"\n" + certificate_of(other), MANIFEST),
            (line[:-2] + b"00\n" + rest, MANIFEST)
            if not line.endswith(b"00")
            else (line[:-2] + b"01\n" + rest, MANIFEST),
            (line.replace(b"SHA256", b"SHA512") + b"\n" + rest, MANIFEST),
        ],
        "not whole bytes": [(line[:-1] + b"\n" + rest, MANIFEST)],
        "is about": [(signed(rsa_key, name="other.mf"), MANIFEST)],
        "not one line": [(rest, MANIFEST), (line, MANIFEST), (line + b"\n" + good, MANIFEST), (b"", MANIFEST)],
        "malformed": [(b"junk\n" + good, MANIFEST)],
        "cannot be read": [
            (line + b"\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", MANIFEST),
            (line + b"\n-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n", MANIFEST),
            (line + b"\n-----BEGIN CERTIFICATE-----\n", MANIFEST),
        ],
        "cannot be checked": [(line + b"\n" + certificate_of(ed25519.Ed25519PrivateKey.generate()), MANIFEST)],
    }
    for said, pairs in wrong.items():
        for content, about in pairs:
            with pytest.raises(ManifestError, match=said):
                check_signature(content, about, "vm.mf", name="vm.ova")


@pytest.mark.threat("T67")
def test_beginnings_of_certificates_without_an_end_take_no_time(rsa_key):
    beginnings = b"-----BEGIN CERTIFICATE-----\n" * (200 * 1024 // 28)
    line = signed(rsa_key).partition(b"\n")[0] + b"\n"
    begun = time.process_time()
    with pytest.raises(ManifestError, match="cannot be read"):
        check_signature(line + beginnings, MANIFEST, "vm.mf", name="vm.ova")
    assert time.process_time() - begun < 2
