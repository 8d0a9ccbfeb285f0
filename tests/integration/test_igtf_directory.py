# SPDX-License-Identifier: Apache-2.0
"""The grid's real directory of trust anchors, as Debian's igtf-policy packages put it there, and its doubles."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from coppice.errors import (
    AuthorityRevokedError,
    NamespaceError,
    RevocationExpiredError,
    RevocationForgedError,
    RevocationUnknownError,
    SignerRevokedError,
    TrustAnchorError,
    TrustError,
    UntrustedSignerError,
)
from coppice.formats.names import distinguished_name, subject_hashes
from coppice.subscription.anchor_files import FileKind
from coppice.subscription.anchor_report import FileVerdict, count_table, report_anchors
from coppice.subscription.anchors import AnchorKind, load_anchors
from coppice.subscription.rules import verify_list
from coppice.testing.authority import Authority, Identity, make_key, make_name
from coppice.testing.igtf import clone_directory, write_authority
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from coppice.model.endorser import DistinguishedName
    from coppice.subscription.anchors import TrustAnchors
    from coppice.subscription.model import VerifiedImageList
    from coppice.testing.igtf import Clone

pytestmark = pytest.mark.integration
REAL = Path("/etc/grid-security/certificates")
NOW = datetime.now(UTC).replace(microsecond=0)
NOBODY = 65534
DAY = timedelta(days=1)
OIDS = {
    "c": "2.5.4.6",
    "cn": "2.5.4.3",
    "dc": "0.9.2342.19200300.100.1.25",
    "l": "2.5.4.7",
    "o": "2.5.4.10",
    "ou": "2.5.4.11",
    "st": "2.5.4.8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Doubles of the real authorities, in a directory that holds their CRLs too."""

    path: Path
    clones: tuple[Clone, ...]
    anchors: TrustAnchors

    def permitted_name(self, clone: Clone) -> x509.Name:
        """Return a name that the authority's policy permits: below its last pattern that is open, if it has one."""
        rules = self.anchors.namespaces.rules[clone.authority.identity.subject]
        patterns = [each.rule.subject for each in rules if each.rule.permits]
        pattern = next((each for each in reversed(patterns) if each.open_end), patterns[-1])
        pairs = [*pattern.attributes, *([("cn", "Robot: lists")] if pattern.open_end else [])]
        return x509.Name([x509.NameAttribute(x509.ObjectIdentifier(OIDS[kind]), value) for kind, value in pairs])

    def permits(self, clone: Clone, name: DistinguishedName) -> bool:
        """Tell whether the authority may certify ``name``."""
        rules = self.anchors.namespaces.rules[clone.authority.identity.subject]
        return any(each.rule.subject.matches(name) for each in rules)

    def endorser(self, clone: Clone, name: x509.Name, at: datetime) -> Identity:
        """Return the holder of a certificate of that name."""
        return clone.authority.issue("", subject=name, not_before=at - DAY, not_after=at + 20 * DAY)

    def verify(self, clone: Clone, endorser: Identity, at: datetime) -> VerifiedImageList:
        """Verify a list by ``endorser`` who is pinned, at an instant when the path is valid."""
        publisher = Simulator.create(clone.authority, endorser=endorser)
        publisher.created, publisher.expires = at - timedelta(hours=1), at + 10 * DAY
        publisher.add_image()
        return verify_list(
            publisher.message(),
            subscription=publisher.subscription(self.path),
            anchors=load_anchors(self.path),
            last=None,
            now=at,
        )


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    path = tmp_path_factory.mktemp("grid")
    clones = clone_directory(REAL, path)
    # Some authorities have expired: their paths are judged when they had not, by CRLs of that time.
    earliest = min(each.instant(NOW) for each in clones) - DAY
    for clone in clones:
        crl = clone.authority.crl(last_update=earliest, next_update=NOW + 30 * DAY)
        stem = subject_hashes(clone.original.subject)[0]
        place = next(path / f"{stem}.r{free}" for free in range(9) if not (path / f"{stem}.r{free}").exists())
        # OpenSSL reads no DER in a directory; that Coppice does is shown elsewhere.
        place.write_bytes(crl.public_bytes(Encoding.PEM))
    return Grid(path=path, clones=clones, anchors=load_anchors(path))


def say(text: str) -> None:
    """Tell a figure; ``pytest -s`` shows it."""
    sys.stdout.write(f"\n{text}\n")


@pytest.mark.threat("T23")
def test_every_file_of_the_real_directory_is_accounted_for() -> None:
    anchors = load_anchors(REAL)
    report = report_anchors(anchors, NOW)
    say(json.dumps(count_table(report), indent=1))
    names = Counter(name for each in report.entries for name in each.names)
    assert set(names) == {file.name for file in REAL.iterdir()}
    assert set(names.values()) == {1}
    # Counted by other means: each certificate is one ``.pem``, under two more names.
    assert anchors.kind is AnchorKind.IGTF
    assert report.count(FileKind.CERTIFICATE) == len(anchors.certificates) == len(list(REAL.glob("*.pem"))) >= 80
    for kind, ending in ((FileKind.NAMESPACES, "namespaces"), (FileKind.SIGNING_POLICY, "signing_policy")):
        files = {file.resolve() for file in REAL.glob(f"*.{ending}")}
        assert report.count(kind) == report.count(kind, FileVerdict.USABLE) == len(files) > 70
    assert not [each for each in report.entries if each.verdict is FileVerdict.UNUSABLE]
    expired = {each.names for each in report.entries if each.verdict is FileVerdict.EXPIRED}
    by_openssl = {file.name for file in REAL.glob("*.pem") if not still_valid(file)}
    assert len(expired) == len(by_openssl)
    assert all(by_openssl.intersection(each) for each in expired)


def still_valid(file: Path) -> bool:
    argv = ["openssl", "x509", "-in", str(file), "-noout", "-checkend", "0"]
    return subprocess.run(argv, check=False, capture_output=True, timeout=60).returncode == 0


def test_every_authority_and_intermediate_of_the_real_directory_has_its_place_and_a_policy() -> None:
    anchors = load_anchors(REAL)
    selfsigned = [each for each in anchors.certificates if each.subject == each.issuer]
    between = [each for each in anchors.certificates if each.subject != each.issuer]
    say(f"{len(selfsigned)} roots, {len(between)} between")
    for each in between:
        assert anchors.named(each.issuer), each.subject
    for each in anchors.certificates:
        assert anchors.namespaces.rules[distinguished_name(each.subject)]
    serials = [each for each in anchors.certificates if _serial(each) == 0]
    say(f"{len(serials)} with the serial number 0")
    assert serials


def _serial(certificate: x509.Certificate) -> int:
    argv = ["openssl", "x509", "-noout", "-serial", "-inform", "DER"]
    done = subprocess.run(argv, input=certificate.public_bytes(Encoding.DER), check=True, capture_output=True)
    return int(done.stdout.decode().partition("=")[2], 16)


def test_the_doubles_are_the_real_authorities_but_for_their_keys(grid: Grid) -> None:
    assert len(grid.clones) == len(load_anchors(REAL).certificates)
    for clone in grid.clones:
        real, double = clone.original, clone.path[0]
        assert (double.subject, double.issuer) == (real.subject, real.issuer)
        assert [(each.oid, each.critical, each.value) for each in double.extensions] == [
            (each.oid, each.critical, each.value) for each in real.extensions
        ]
        assert (double.not_valid_before_utc, double.not_valid_after_utc) == (
            real.not_valid_before_utc,
            real.not_valid_after_utc,
        )
        assert double.public_key() != real.public_key()
        assert len(clone.path) == 1 + (real.subject != real.issuer) + (len(clone.path) > 2)
    assert {file.name for file in REAL.glob("*.0")} == {file.name for file in grid.path.glob("*.0")}


def test_a_list_verifies_below_every_authority_of_the_grid(grid: Grid) -> None:
    heights: Counter[int] = Counter()
    past = 0
    for clone in grid.clones:
        at = clone.instant(NOW)
        past += at != NOW
        endorser = grid.endorser(clone, grid.permitted_name(clone), at)
        verified = grid.verify(clone, endorser, at)
        assert verified.signer == endorser.subject
        heights[len(clone.path)] += 1
    say(f"accepted: {sum(heights.values())}; by authorities in the path: {dict(heights)}; judged in the past: {past}")
    assert sum(heights.values()) == len(grid.clones)


@pytest.mark.threat("T15")
def test_the_same_name_below_any_other_authority_of_the_grid_is_refused(grid: Grid) -> None:
    refused = shared = 0
    for place, clone in enumerate(grid.clones):
        name = grid.permitted_name(clone)
        for step in (1, 17, 41):
            other = grid.clones[(place + step) % len(grid.clones)]
            if grid.permits(other, distinguished_name(name)):
                # Authorities of one organisation certify the same names.
                shared += 1
                continue
            at = other.instant(NOW)
            with pytest.raises(NamespaceError):
                grid.verify(other, grid.endorser(other, name, at), at)
            refused += 1
    say(f"refused: {refused}; names that two may certify: {shared}")
    assert refused > 2 * len(grid.clones)


@pytest.mark.threat("T17")
def test_a_double_is_not_taken_for_the_real_authority(grid: Grid) -> None:
    clone = next(each for each in grid.clones if each.instant(NOW) == NOW)
    endorser = grid.endorser(clone, grid.permitted_name(clone), NOW)
    real = replace(grid, path=REAL)
    for chain in (endorser.chain, (*endorser.chain, *clone.path)):
        with pytest.raises(UntrustedSignerError):
            real.verify(clone, replace(endorser, chain=chain), NOW)


def test_openssl_agrees_about_the_paths_of_the_grid(grid: Grid, tmp_path: Path) -> None:
    compared = 0
    for clone in grid.clones[::6]:
        at = clone.instant(NOW)
        name = grid.permitted_name(clone)
        endorser = grid.endorser(clone, name, at)
        assert grid.verify(clone, endorser, at)
        assert openssl(endorser, grid.path, at, tmp_path) == ""
        for unfit, said in (
            (clone.authority.issue("", subject=name, not_before=at - 9 * DAY, not_after=at - DAY), "has expired"),
            (clone.authority.issue("", subject=name, not_before=at + DAY, not_after=at + 9 * DAY), "not yet valid"),
            (
                Authority(identity=clone_with_another_key(clone)).issue("", subject=name, not_before=at - DAY),
                "unable to get local issuer|signature failure",
            ),
        ):
            assert re.search(said, openssl(unfit, grid.path, at, tmp_path))
            with pytest.raises(TrustError):
                grid.verify(clone, unfit, at)
        with revoked(grid, clone, endorser, at):
            assert "revoked" in openssl(endorser, grid.path, at, tmp_path)
            with pytest.raises(SignerRevokedError):
                grid.verify(clone, endorser, at)
        compared += 5
        # Where Coppice is stricter: OpenSSL knows no namespaces.
        other = next(each for each in grid.clones if not grid.permits(each, distinguished_name(name)))
        if other.instant(NOW) == NOW:
            stray = grid.endorser(other, name, NOW)
            assert openssl(stray, grid.path, NOW, tmp_path) == ""
            with pytest.raises(NamespaceError):
                grid.verify(other, stray, NOW)
    say(f"compared with openssl verify: {compared}")


def clone_with_another_key(clone: Clone) -> Identity:
    """Return the identity of an authority whose certificate is the double's and whose key is not."""
    return Identity(certificate=clone.path[0], key=make_key(), chain=clone.path[1:])


@contextmanager
def revoked(grid: Grid, clone: Clone, endorser: Identity, at: datetime) -> Iterator[None]:
    """Let the authority's CRL revoke ``endorser`` inside."""
    crl = replace(clone.authority, revoked={endorser.certificate.serial_number: at - DAY}).crl(
        last_update=at - DAY, next_update=at + DAY
    )
    place = next(grid.path.glob(f"{subject_hashes(clone.original.subject)[0]}.r*"))
    kept = place.read_bytes()
    place.write_bytes(crl.public_bytes(Encoding.PEM))
    try:
        yield
    finally:
        place.write_bytes(kept)


def openssl(endorser: Identity, directory: Path, at: datetime, place: Path) -> str:
    """Return what OpenSSL has against a path; nothing when it accepts it."""
    (place / "leaf.pem").write_bytes(endorser.certificate.public_bytes(Encoding.PEM))
    argv = [
        "openssl",
        "verify",
        "-crl_check_all",
        "-x509_strict",
        "-no-CAfile",
        "-no-CAstore",
        "-CApath",
        str(directory),
    ]
    argv += ["-attime", str(int(at.timestamp())), "-purpose", "any", str(place / "leaf.pem")]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stderr + done.stdout


# Four refusals, each by its own code (through the rules, and through the command line).


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A small grid: a root, an authority below it, a publisher below that."""

    path: Path
    root: Authority
    between: Authority
    publisher: Simulator

    def write(self, **crls: x509.CertificateRevocationList | None) -> None:
        """Write the directory anew; a CRL that is given replaces the current one, None leaves it out."""
        for file in self.path.iterdir():
            file.unlink()
        named: Mapping[str, tuple[Authority, list[str]]] = {
            "root": (self.root, ["/DC=org/DC=example/CN=Sub CA"]),
            "between": (self.between, ["/DC=org/DC=example/.*"]),
        }
        for name, (authority, patterns) in named.items():
            given = crls.get(name, authority.crl())
            write_authority(self.path, authority, namespaces=patterns, crl=given, with_crl=given is not None)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    root = Authority.create("Root CA")
    between = root.issue_authority("Sub CA")
    publisher = Simulator.create(between, endorser=between.issue("Jane Doe"), uri=f"file://{tmp_path}/demo.list")
    publisher.add_image()
    publisher.write_to(tmp_path)
    path = tmp_path / "certificates"
    path.mkdir()
    made = Small(path=path, root=root, between=between, publisher=publisher)
    made.write()
    return made


FAULTS: dict[str, type[TrustError]] = {
    "the endorser is revoked": SignerRevokedError,
    "the intermediate is revoked": AuthorityRevokedError,
    "the root's CRL is expired": RevocationExpiredError,
    "the intermediate's CRL is expired": RevocationExpiredError,
    "the root's CRL is signed by the wrong key": RevocationForgedError,
    "the intermediate's CRL is signed by the wrong key": RevocationForgedError,
    "the root's CRL is missing": RevocationUnknownError,
    "the intermediate's CRL is missing": RevocationUnknownError,
    "the name is not the authority's to certify": NamespaceError,
}


def spoil(small: Small, fault: str) -> None:
    """Write the directory with one thing wrong."""
    which = "root" if "root" in fault else "between"
    authority = small.root if which == "root" else small.between
    if fault == "the endorser is revoked":
        small.between.revoke(small.publisher.endorser.certificate)
    elif fault == "the intermediate is revoked":
        small.root.revoke(small.between.identity.certificate)
    crl: dict[str, x509.CertificateRevocationList | None] = {}
    if "expired" in fault:
        crl[which] = authority.crl(last_update=NOW - 9 * DAY, next_update=NOW - DAY)
    elif "wrong key" in fault:
        crl[which] = authority.crl(key=make_key())
    elif "missing" in fault:
        crl[which] = None
    small.write(**crl)
    if "certify" in fault:
        policy = next(file for file in small.path.glob("Sub-CA.namespaces"))
        policy.write_text(policy.read_text().replace("DC=example/.*", "DC=elsewhere/.*"))


@pytest.mark.threat("T19")
@pytest.mark.threat("T20")
@pytest.mark.threat("T21")
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_refused_by_its_own_code_by_the_rules(small: Small, fault: str) -> None:
    def verify() -> VerifiedImageList:
        return verify_list(
            small.publisher.message(),
            subscription=small.publisher.subscription(small.path),
            anchors=load_anchors(small.path),
            last=None,
            now=NOW,
        )

    assert verify()
    spoil(small, fault)
    with pytest.raises(TrustError) as caught:
        verify()
    assert type(caught.value) is FAULTS[fault]


def coppice(state: Path, *arguments: object, **environment: str) -> tuple[int, dict[str, object]]:
    """Run the command line with shipped defaults."""
    given = {**os.environ, "HOME": str(state), "XDG_CONFIG_HOME": str(state), **environment}
    argv = ["coppice", "--json", *map(str, arguments)]
    given["COPPICE_STATE_DIRECTORY"] = str(state / "state")
    given["PATH"] = f"{Path(sys.executable).parent}:{given['PATH']}"
    done = subprocess.run(argv, check=False, capture_output=True, env=given, timeout=120)
    assert b"Traceback" not in done.stderr
    assert b"Warning" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def subscribe(small: Small, state: Path) -> None:
    """Subscribe through the command line."""
    state.mkdir()
    endorser = small.publisher.endorser
    code, said = coppice(
        state, "subscription", "add", "demo", small.publisher.uri, "--anchors", small.path,
        "--endorser-dn", endorser.subject, "--endorser-ca", endorser.issuer,
    )  # fmt: skip
    assert code == 0, said


@pytest.mark.threat("T19")
@pytest.mark.threat("T20")
@pytest.mark.threat("T21")
@pytest.mark.parametrize(
    "fault",
    [
        "the endorser is revoked",
        "the intermediate is revoked",
        "the root's CRL is expired",
        "the intermediate's CRL is signed by the wrong key",
        "the name is not the authority's to certify",
    ],
)
def test_each_fault_is_refused_by_its_own_code_on_the_command_line(small: Small, tmp_path: Path, fault: str) -> None:
    state = tmp_path / "home"
    subscribe(small, state)
    spoil(small, fault)
    code, said = coppice(state, "subscription", "refresh", "demo")
    assert code != 0
    assert [each["code"] for each in said["errors"]] == [FAULTS[fault].code]  # type: ignore[attr-defined]
    small.root.revoked.clear()
    small.between.revoked.clear()
    small.write()
    assert coppice(state, "subscription", "refresh", "demo")[0] == 0
    # A list that was verified is judged again when a revocation comes.
    spoil(small, fault)
    code, said = coppice(state, "subscription", "refresh", "--force", "demo")
    assert code != 0
    assert FAULTS[fault].code in [each["code"] for each in said["errors"]]  # type: ignore[attr-defined]


@pytest.mark.threat("T24")
def test_what_the_systems_certificates_say_does_not_matter(small: Small, tmp_path: Path) -> None:
    attacker = Authority.create("Attacker CA")
    mallory = attacker.issue("Jane Doe")
    forged = replace(small.publisher, authority=attacker, endorser=mallory)
    forged.write_to(tmp_path)
    bundle = tmp_path / "system"
    bundle.mkdir()
    write_authority(bundle, attacker)
    (bundle / "all.pem").write_bytes(attacker.identity.certificate.public_bytes(Encoding.PEM))
    environment = {"SSL_CERT_FILE": str(bundle / "all.pem"), "SSL_CERT_DIR": str(bundle)}
    # The environment is good for what it should not do: OpenSSL trusts the attacker by it.
    leaf = tmp_path / "mallory.pem"
    leaf.write_bytes(mallory.certificate.public_bytes(Encoding.PEM))
    argv = ["openssl", "verify", "-purpose", "any", str(leaf)]
    assert subprocess.run(argv, check=False, env={**os.environ, **environment}, capture_output=True).returncode == 0
    state = tmp_path / "home"
    state.mkdir()
    code, said = coppice(
        state, "subscription", "add", "demo", small.publisher.uri, "--anchors", small.path,
        "--endorser-dn", mallory.subject, "--endorser-ca", mallory.issuer, **environment,
    )  # fmt: skip
    assert code == 0, said
    code, said = coppice(state, "subscription", "refresh", "demo", **environment)
    assert [each["code"] for each in said["errors"]] == ["signer-untrusted"]  # type: ignore[attr-defined]
    assert code != 0


def as_nobody(act: Callable[[], str]) -> str:
    """Return what ``act`` says in a process of a user who may nothing; the code is loaded already."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            said = act()
        except BaseException as problem:  # noqa: BLE001 - told to the test
            said = repr(problem)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.mark.threat("T23")
def test_a_directory_that_its_user_may_not_read_is_an_error(small: Small, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    # Of several test processes, each has a folder of its own in between.
    for parent in tmp_path.parents:
        if parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    for file in small.path.glob("*.pem"):
        file.chmod(0)

    def load() -> str:
        try:
            return str(load_anchors(small.path).problems)
        except TrustAnchorError as problem:
            return f"{problem} {problem.details}"

    said = as_nobody(load)
    assert "no usable trust anchor" in said
    assert "Permission denied" in said


def test_an_end_entity_of_another_grid_is_refused(grid: Grid) -> None:
    stranger = Authority.create("Stranger CA", subject=make_name("Stranger CA"))
    with pytest.raises(UntrustedSignerError):
        grid.verify(replace(grid.clones[0], authority=stranger), stranger.issue("Jane Doe"), NOW)
