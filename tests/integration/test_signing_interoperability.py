# SPDX-License-Identifier: Apache-2.0
"""What the real command line publishes, with every kind of key and digest, is believed by all who read such lists."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from coppice.cli.main import main
from coppice.testing import consumers, images
from coppice.testing.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.testing.authority import Identity, PrivateKey

pytestmark = pytest.mark.integration
MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "4711-pin"
PHRASE = "correct horse"
DIGESTS = ("sha256", "sha384", "sha512")
LIST = "demo"
URL = "https://lists.example.org/vo"

RUBY = """
require 'openssl'
store = OpenSSL::X509::Store.new
store.add_path ARGV[1]
message = OpenSSL::PKCS7.read_smime(File.read(ARGV[0]))
abort "not verified: #{message.error_string}" unless message.verify([], store)
STDOUT.binmode
STDOUT.write message.data
"""
M2CRYPTO = """
import base64, json, sys
from M2Crypto import BIO, SMIME, X509

with open(sys.argv[1], 'rb') as file:
    pkcs7, data = SMIME.smime_load_pkcs7_bio(BIO.MemoryBuffer(file.read()))
signers = pkcs7.get0_signers(X509.X509_Stack())
assert len(signers) == 1, len(signers)
authorities, store = X509.X509_Stack(), X509.X509_Store()
authorities.push(X509.load_cert(sys.argv[2]))
store.load_info(sys.argv[2])
smime = SMIME.SMIME()
smime.set_x509_stack(authorities)
smime.set_x509_store(store)
content = smime.verify(pkcs7, BIO.MemoryBuffer(bytes(data.read())))
names = [str(signers[0].get_subject()), str(signers[0].get_issuer())]
print(json.dumps([base64.b64encode(content).decode(), *names]))
"""


class Publisher:
    """A publisher with one list and one image, as its administrator sees it."""

    def __init__(self, root: Path, authority: Authority) -> None:
        self.root = root
        self.settings = root / "coppice.toml"
        self.web = root / "web"
        self.settings.write_text(
            f'state_directory = "{root}/state"\n'
            f'[publishers.web]\ndriver = "directory"\npath = "{self.web}"\nurl = "{URL}"\n'
        )
        self.anchors = root / "anchors"
        authority.write_to(self.anchors)
        subprocess.run(["openssl", "rehash", self.anchors], check=True, capture_output=True, timeout=60)
        self.versions: list[str] = []

    def run(self, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any]:
        capsys.readouterr()
        code = main(["--config", str(self.settings), "--json", *map(str, words)])
        return code, json.loads(capsys.readouterr().out)

    def ok(self, capsys: pytest.CaptureFixture[str], *words: object) -> Any:
        code, said = self.run(capsys, *words)
        assert code == 0, said
        return said["data"]

    @property
    def message(self) -> Path:
        return self.web / f"{LIST}.list"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("Example CA")


@pytest.fixture(scope="module")
def publisher(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("publisher"), authority)


@pytest.fixture
def ready(publisher: Publisher, authority: Authority, capsys: pytest.CaptureFixture[str]) -> Publisher:
    """Have the list there, with one image and an endorser whom each test replaces."""
    if publisher.versions:
        return publisher
    root = publisher.root
    certificate, key = authority.issue("Jane Doe").write_to(root, "first")
    first = ("--certificate", certificate, "--key", key, "--email", "jane@example.org")
    publisher.ok(capsys, "endorser", "add", "jane", *first)
    content = images.raw_disk()
    (root / "disk.raw").write_bytes(content)
    described = {
        "action": "registration",
        "identifier": "debian-12",
        "version": "12.9",
        "title": "Debian 12, \N{LATIN SMALL LETTER U WITH DIAERESIS}ber-minimal",
        "description": "two\nlines",
        "groups": ["General"],
        "os": {"type": "Linux", "distribution": "Debian", "version": "12", "arch": "x86_64"},
        "created": "2026-11-20T00:00:00Z",
        "disks": [
            {
                "path": "disk.raw",
                "format": "raw",
                "size_bytes": len(content),
                "virtual_size_bytes": len(content),
                "sha512": hashlib.sha512(content).hexdigest(),
            }
        ],
    }
    (root / "debian.json").write_text(json.dumps(described))
    publisher.ok(capsys, "appliance", "add", "--descriptor", root / "debian.json")
    options = ("--endorser", "jane", "--publisher", "web", "--title", "Demo", "--vo", "vo.example.org")
    publisher.ok(capsys, "imagelist", "create", LIST, *options, "--source", "https://lists.example.org/")
    publisher.ok(capsys, "imagelist", "add", LIST, "debian-12")
    publisher.versions.append("")
    return publisher


def tool(*argv: object, stdin: bytes = b"") -> bytes:
    ended = subprocess.run([str(word) for word in argv], input=stdin, capture_output=True, check=False, timeout=60)
    assert ended.returncode == 0, (argv[0], ended.stderr.decode(errors="replace")[-2000:])
    return ended.stdout


def oneline(certificate: Path, what: str) -> str:
    text = tool("openssl", "x509", "-in", certificate, "-noout", f"-{what}", "-nameopt", "compat").decode().strip()
    return text.partition("=")[2].strip()


def check_with_every_reader(publisher: Publisher, certificate: Path, digest: str, published: Any) -> None:
    """Verify what lies at the publisher with each tool, and hold what they found against each reader's rules."""
    message, anchor, out = publisher.message, publisher.anchors / "ca.pem", publisher.root / "out"
    found: dict[str, bytes] = {}
    for name in ("cms", "smime"):
        options = ("-CAfile", anchor, "-no-CApath", "-no-CAstore")
        tool("openssl", name, "-verify", "-in", message, "-inform", "SMIME", *options, "-out", out)
        found[name] = out.read_bytes()
    found["ruby"] = tool("ruby", "-e", RUBY, message, publisher.anchors)
    content, *by_m2crypto = json.loads(tool("/usr/bin/python3", "-c", M2CRYPTO, message, anchor))
    found["m2crypto"] = base64.b64decode(content)
    assert len({payload.replace(b"\r\n", b"\n") for payload in found.values()}) == 1
    assert found["cms"].count(b"\n") == found["cms"].count(b"\r\n") > 10
    shown = (oneline(certificate, "subject"), oneline(certificate, "issuer"))
    assert by_m2crypto == list(shown)
    # OpenSSL 3 puts a backslash before a slash or plus within a value; those that vmcatcher was used with did not.
    names = (re.sub(r"\\([/+])", r"\1", shown[0]), re.sub(r"\\([/+])", r"\1", shown[1]))
    assert hashlib.sha512(found["cms"]).hexdigest() in published["payload"]
    known = consumers.KnownList(
        identifier=published["identifier"],
        uri=published["uri"],
        endorser=names,
        version=publisher.versions[-1] or None,
    )
    for payload in found.values():
        now = datetime.now(UTC)
        assert consumers.vmcatcher_complaints(payload, subject=names[0], issuer=names[1], known=known, now=now) == []
        assert consumers.cloudkeeper_complaints(payload) == []
        assert consumers.atrope_complaints(payload) == []
    publisher.versions.append(published["version"])
    check_structure(message, digest)


def check_structure(message: Path, digest: str) -> None:
    head = message.read_bytes().partition(b"\r\n\r\n")[0].decode()
    assert f'micalg="sha-{digest[3:]}"' in head
    assert 'protocol="application/x-pkcs7-signature"' in head
    assert b"\n" not in message.read_bytes().replace(b"\r\n", b"")
    shown = tool("openssl", "cms", "-cmsout", "-print", "-noout", "-in", message, "-inform", "SMIME").decode()
    assert "eContent: <ABSENT>" in shown
    assert re.search(rf"digestAlgorithm: *\n? *algorithm: {digest}", shown)
    assert [name for name in ("contentType", "messageDigest", "signingTime") if f"object: {name}" in shown] == [
        "contentType",
        "messageDigest",
        "signingTime",
    ]


def test_the_second_opinions_refuse_what_was_changed_or_signed_below_another_authority(
    ready: Publisher, authority: Authority, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, options = pem(ready, authority.issue("Jane Doe"), None)
    ready.ok(capsys, "endorser", "add", "jane", *options, "--email", "jane@example.org")
    ready.ok(capsys, "imagelist", "publish", LIST)
    honest, changed, stranger = ready.message.read_bytes(), tmp_path / "changed", tmp_path / "stranger"
    changed.write_bytes(honest.replace(b'"dc:title": "Demo"', b'"dc:title": "Dem0"'))
    assert changed.read_bytes() != honest
    Authority.create("Example CA").write_to(stranger)
    subprocess.run(["openssl", "rehash", stranger], check=True, capture_output=True, timeout=60)
    for message, anchors in ((changed, ready.anchors), (ready.message, stranger)):
        for argv in (
            ("openssl", "cms", "-verify", "-in", message, "-CAfile", anchors / "ca.pem", "-no-CApath", "-no-CAstore"),
            ("openssl", "smime", "-verify", "-in", message, "-CAfile", anchors / "ca.pem", "-no-CApath", "-no-CAstore"),
            ("ruby", "-e", RUBY, message, anchors),
            ("/usr/bin/python3", "-c", M2CRYPTO, message, anchors / "ca.pem"),
        ):
            ended = subprocess.run([str(word) for word in argv], capture_output=True, check=False, timeout=60)
            assert ended.returncode != 0, argv


class OnToken:
    """Stands for a key that is on a token, where only the public part is needed."""

    def __init__(self, public: Any) -> None:
        self._public = public

    def public_key(self) -> Any:
        return self._public


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """A token of SoftHSM's with a place of its own; returns what puts a key on it and names it."""
    import pkcs11

    root = tmp_path_factory.mktemp("softhsm")
    (root / "tokens").mkdir()
    (root / "conf").write_text(f"directories.tokendir = {root}/tokens\nobjectstore.backend = file\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(root / "conf")
    label = "Our token"
    tool("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "so-pin-1")
    number = 0

    def put(key: PrivateKey) -> str:
        nonlocal number
        number += 1
        plain = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = root / f"{number}.pem"
        path.write_bytes(plain)
        options = ("--token", label, "--label", f"key {number}", "--id", f"{number:02x}", "--pin", PIN)
        tool("softhsm2-util", "--import", path, *options)
        path.unlink()
        return f"pkcs11:token=Our%20token;object=key%20{number};id=%{number:02x}?module-path={MODULE}"

    yield put
    pkcs11.unload(MODULE)
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


KEYS: dict[str, Callable[[], PrivateKey]] = {
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
}


def pem(publisher: Publisher, identity: Identity, token: Any) -> tuple[Path, list[object]]:
    certificate, key = identity.write_to(publisher.root, "jane")
    return certificate, ["--certificate", certificate, "--key", key]


def encrypted(form: serialization.PrivateFormat) -> Any:
    def make(publisher: Publisher, identity: Identity, token: Any) -> tuple[Path, list[object]]:
        certificate, key = identity.write_to(publisher.root, "jane")
        encryption = serialization.BestAvailableEncryption(PHRASE.encode())
        key.write_bytes(identity.key.private_bytes(serialization.Encoding.PEM, form, encryption))
        return certificate, ["--certificate", certificate, "--key", key, "--passphrase-file", phrase(publisher)]

    return make


def pkcs12(*options: str) -> Any:
    def make(publisher: Publisher, identity: Identity, token: Any) -> tuple[Path, list[object]]:
        certificate, key = identity.write_to(publisher.root, "jane")
        bundle = publisher.root / "jane.p12"
        argv = ("openssl", "pkcs12", "-export", "-in", certificate, "-inkey", key, "-out", bundle, *options)
        tool(*argv, "-passout", f"pass:{PHRASE}")
        bundle.chmod(0o600)
        return certificate, ["--pkcs12", bundle, "--passphrase-variable", "JANE_PHRASE"]

    return make


def on_token(publisher: Publisher, identity: Identity, token: Any) -> tuple[Path, list[object]]:
    certificate, key = identity.write_to(publisher.root, "jane")
    key.unlink()
    uri = token(identity.key)
    return certificate, ["--certificate", certificate, "--key", uri, "--passphrase-variable", "JANE_PIN"]


def phrase(publisher: Publisher) -> Path:
    path = publisher.root / "phrase"
    path.write_text(f"{PHRASE}\n")
    path.chmod(0o600)
    return path


PLACES: dict[str, Any] = {
    "pem": pem,
    "pkcs8": encrypted(serialization.PrivateFormat.PKCS8),
    "traditional": encrypted(serialization.PrivateFormat.TraditionalOpenSSL),
    "pkcs12": pkcs12(),
    "pkcs12-legacy": pkcs12("-legacy"),
    "pkcs11": on_token,
}
CASES = [
    *((key, "pem", digest) for key in KEYS for digest in DIGESTS),
    *((key, "pkcs11", digest) for key in ("rsa2048", "p256", "p384") for digest in DIGESTS),
    ("p521", "pkcs11", "sha512"),
    *((key, place, "sha256") for key in ("rsa2048", "p256") for place in PLACES if place not in {"pem", "pkcs11"}),
]


@pytest.mark.threat("T27")
@pytest.mark.parametrize(("key", "place", "digest"), CASES)
def test_what_is_published_is_believed_by_every_reader(
    ready: Publisher,
    authority: Authority,
    token: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    key: str,
    place: str,
    digest: str,
) -> None:
    monkeypatch.setenv("JANE_PHRASE", PHRASE)
    monkeypatch.setenv("JANE_PIN", PIN)
    identity = authority.issue("Jane Doe", key=KEYS[key]())
    certificate, options = PLACES[place](ready, identity, token)
    ready.ok(capsys, "endorser", "add", "jane", *options, "--email", "jane@example.org", "--digest", digest)
    published = ready.ok(capsys, "imagelist", "publish", LIST)
    check_with_every_reader(ready, certificate, digest, published)


@pytest.mark.threat("T27")
def test_a_key_made_on_the_token_signs_with_the_certificate_on_the_token(
    ready: Publisher,
    authority: Authority,
    token: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pkcs11
    from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

    token(KEYS["p256"]())  # another key beside it
    with pkcs11.lib(MODULE).get_token(token_label="Our token").open(rw=True, user_pin=PIN) as session:  # noqa: S106
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
        )
        public, private = parameters.generate_keypair(store=True, label="made here", id=b"\xab\xcd")
        assert private[pkcs11.Attribute.EXTRACTABLE] is False
        made = serialization.load_der_public_key(encode_ec_public_key(public))
        identity = authority.issue("Jane Doe", key=OnToken(made))  # type: ignore[arg-type]
        for one in (authority.issue("Jane Doe"), identity):
            value = one.certificate.public_bytes(serialization.Encoding.DER)
            session.create_object(
                {
                    pkcs11.Attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE,
                    pkcs11.Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
                    pkcs11.Attribute.TOKEN: True,
                    pkcs11.Attribute.ID: b"\xab\xcd",
                    pkcs11.Attribute.LABEL: "made here",
                    pkcs11.Attribute.SUBJECT: one.certificate.subject.public_bytes(),
                    pkcs11.Attribute.VALUE: value,
                }
            )
    certificate = ready.root / "jane.pem"
    certificate.write_bytes(identity.certificate.public_bytes(serialization.Encoding.PEM))
    monkeypatch.setenv("JANE_PIN", PIN)
    uri = f"pkcs11:token=Our%20token;id=%AB%CD;type=private?module-path={MODULE}"
    options = ("--key", uri, "--passphrase-variable", "JANE_PIN", "--email", "jane@example.org")
    ready.ok(capsys, "endorser", "add", "jane", *options)
    check_with_every_reader(ready, certificate, "sha256", ready.ok(capsys, "imagelist", "publish", LIST))


@pytest.mark.threat("T27")
@pytest.mark.parametrize(
    "name",
    [
        [(NameOID.COMMON_NAME, "host/images.example.org")],
        [(NameOID.COMMON_NAME, "Jane Doe"), (NameOID.EMAIL_ADDRESS, "jane@example.org")],
        [(NameOID.ORGANIZATION_NAME, "Example, Inc. + more = most"), (NameOID.USER_ID, "jane")],
        [(NameOID.COMMON_NAME, "J\N{LATIN SMALL LETTER U WITH DIAERESIS}rgen")],
    ],
    ids=["host", "email", "punctuation", "umlaut"],
)
def test_odd_names_are_written_as_vmcatcher_compares_them(
    ready: Publisher, authority: Authority, capsys: pytest.CaptureFixture[str], name: list[Any]
) -> None:
    subject = x509.Name(
        [x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "org"), *(x509.NameAttribute(*one) for one in name)]
    )
    identity = authority.issue("", subject=subject)
    certificate, options = pem(ready, identity, None)
    ready.ok(capsys, "endorser", "add", "jane", *options, "--email", "jane@example.org")
    check_with_every_reader(ready, certificate, "sha256", ready.ok(capsys, "imagelist", "publish", LIST))


@pytest.mark.parametrize(
    ("change", "code", "error", "said"),
    [
        ({"uri": "token=Other"}, 4, "key-token-failed", "the token 'Other' is not there"),
        ({"uri": "object=none"}, 4, "key-token-failed", "'none' on the token 'Our token' is not there"),
        ({"uri": "module-path=/nowhere.so"}, 4, "key-token-failed", "no PKCS#11 module /nowhere.so"),
        ({"uri": "module-path=/etc/hostname"}, 4, "key-token-failed", "cannot be used"),
        ({"pin": "wrong"}, 3, "credential-unusable", "refused the PIN"),
        ({"pin": None}, 3, "credential-unusable", "JANE_PIN is not set"),
        ({"certificate": "another's"}, 3, "file-unreadable", "does not belong"),
        ({"certificate": None}, 4, "key-token-failed", "no certificate"),
    ],
)
def test_a_token_that_cannot_be_used_is_refused_and_nothing_is_kept(
    ready: Publisher,
    authority: Authority,
    token: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    change: dict[str, Any],
    code: int,
    error: str,
    said: str,
) -> None:
    identity = authority.issue("Jane Doe", key=KEYS["p256"]())
    certificate, options = on_token(ready, identity, token)
    uri = str(options[3])
    for name, value in [change["uri"].split("=")] if "uri" in change else []:
        uri = re.sub(rf"{name}=[^;?]*", f"{name}={value}", uri)
    if change.get("uri", "").startswith("object"):
        uri = re.sub(";id=[^?]*", "", uri)
    pin = change.get("pin", PIN)
    monkeypatch.delenv("JANE_PIN", raising=False)
    if pin is not None:
        monkeypatch.setenv("JANE_PIN", pin)
    if change.get("certificate"):
        authority.issue("Jane Doe").write_to(ready.root, "jane")
    own = [] if change.get("certificate", "") is None else ["--certificate", certificate]
    words = ("--key", uri, "--passphrase-variable", "JANE_PIN", "--email", "x@example.org")
    ended, envelope = ready.run(capsys, "endorser", "add", "card", *own, *words)
    assert (ended, envelope["errors"][0]["code"]) == (code, error), envelope
    assert said in envelope["errors"][0]["message"]
    assert PIN not in json.dumps(envelope)
    assert "card" not in [each["name"] for each in ready.ok(capsys, "endorser", "list")]


def test_no_passphrase_or_pin_is_kept_anywhere(ready: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (ready.root / "state").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert PHRASE.encode() not in content, path
            assert PIN.encode() not in content, path
            assert b"PRIVATE KEY" not in content, path


def test_a_key_that_others_can_read_is_warned_of(
    ready: Publisher, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    _, options = pem(ready, authority.issue("Jane Doe"), None)
    (ready.root / "jane.key").chmod(0o644)
    assert stat.S_IMODE((ready.root / "jane.key").stat().st_mode) == 0o644
    code, said = ready.run(capsys, "endorser", "add", "jane", *options, "--email", "jane@example.org")
    assert code == 0
    assert any("chmod 600" in each for each in said["messages"])
    code, said = ready.run(capsys, "endorser", "show", "jane", "--check")
    assert code == 0
    assert any("chmod 600" in each for each in said["messages"])
