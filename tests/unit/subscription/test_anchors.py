# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from coppice.errors import TrustAnchorError
from coppice.formats.names import subject_hashes
from coppice.formats.namespaces import read_namespaces
from coppice.subscription import anchor_contents, anchor_files
from coppice.subscription.anchor_files import AnchorLimits, Entry, FileKind, NamedFile
from coppice.subscription.anchor_report import FileVerdict, count_table, report_anchors
from coppice.subscription.anchors import AnchorKind, AnchorShelf, TrustAnchors, load_anchors
from coppice.testing.authority import Authority, make_name
from coppice.testing.igtf import write_authority
from coppice.testing.odd import Oddity, altered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.testing.authority import Identity

pytestmark = pytest.mark.unit
NOW = datetime.now(UTC)
YEAR = timedelta(days=365)


def test_a_directory_gives_anchors_and_crls(authority: Authority, tmp_path: Path) -> None:
    authority.write_to(tmp_path)
    (tmp_path / "abcd1234.0").write_bytes(authority.identity.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "abcd1234.r0").write_bytes(authority.crl().public_bytes(Encoding.DER))
    (tmp_path / "notes.txt").write_text("not looked at")
    anchors = load_anchors(tmp_path)
    assert anchors.certificates == (authority.identity.certificate,)
    assert len(anchors.crls_of(authority.identity.subject)) == 2
    assert anchors.problems == ()
    assert anchors.kind is AnchorKind.DIRECTORY


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_single_file_is_enough(authority: Authority, tmp_path: Path, encoding: Encoding) -> None:
    path = tmp_path / "anchor"
    path.write_bytes(authority.identity.certificate.public_bytes(encoding))
    anchors = load_anchors(path)
    assert anchors.certificates == (authority.identity.certificate,)
    assert anchors.kind is AnchorKind.BUNDLE


def test_a_bundle_holds_certificates_and_crls(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "bundle.pem"
    path.write_bytes(
        b"some words\n"
        + authority.identity.certificate.public_bytes(Encoding.PEM)
        + authority.crl().public_bytes(Encoding.PEM)
    )
    anchors = load_anchors(path)
    assert len(anchors.certificates) == 1
    assert len(anchors.crls_of(authority.identity.subject)) == 1


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_the_endorsers_own_certificate_is_a_pin(jane: Identity, tmp_path: Path, encoding: Encoding) -> None:
    path = tmp_path / "jane.pem"
    path.write_bytes(jane.certificate.public_bytes(encoding))
    anchors = load_anchors(path)
    assert (anchors.kind, anchors.certificates) == (AnchorKind.PINNED, (jane.certificate,))


def test_an_endorser_beside_an_authority_is_no_anchor(authority: Authority, jane: Identity, tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    path.write_bytes(
        b"".join(one.public_bytes(Encoding.PEM) for one in (jane.certificate, authority.identity.certificate))
    )
    anchors = load_anchors(path)
    assert (anchors.kind, anchors.certificates) == (AnchorKind.BUNDLE, (authority.identity.certificate,))
    assert any("Jane Doe is no authority" in said for said in anchors.problems)


def test_one_authority_under_many_names_is_counted_once(authority: Authority, tmp_path: Path) -> None:
    alias = write_authority(tmp_path, authority, namespaces=["/DC=org/.*"], signing_policy=["/DC=org/*"])
    (tmp_path / "copy.crt").write_bytes(authority.identity.certificate.public_bytes(Encoding.DER))
    (tmp_path / f"{alias}.info").write_text("alias = x")
    anchors = load_anchors(tmp_path)
    report = report_anchors(anchors, NOW)
    new, old = subject_hashes(authority.identity.certificate.subject)
    assert anchors.kind is AnchorKind.IGTF
    assert len(anchors.certificates) == 1
    assert {f"{new}.0", f"{old}.0", f"{alias}.pem"} in [set(each.names) for each in report.entries]
    assert {kind: dict(found) for kind, found in count_table(report).items()} == {
        FileKind.CERTIFICATE: {FileVerdict.USABLE: 2},
        FileKind.CRL: {FileVerdict.USABLE: 1},
        FileKind.NAMESPACES: {FileVerdict.USABLE: 1},
        FileKind.SIGNING_POLICY: {FileVerdict.USABLE: 1},
        FileKind.OTHER: {FileVerdict.IGNORED: 1},
    }
    assert sorted(name for each in report.entries for name in each.names) == sorted(
        file.name for file in tmp_path.iterdir()
    )
    assert report.problems == ()


@pytest.mark.threat("T23")
def test_bad_entries_are_skipped_and_reported(authority: Authority, jane: Identity, tmp_path: Path) -> None:
    authority.write_to(tmp_path)
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "base64.pem").write_text("-----BEGIN CERTIFICATE-----\n====\n-----END CERTIFICATE-----\n")
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    (tmp_path / "jane.pem").write_bytes(jane.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "dangling.0").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.0").symlink_to(tmp_path / "loop.0")
    (tmp_path / "folder.pem").mkdir()
    os.mkfifo(tmp_path / "pipe.pem")
    (tmp_path / "huge.pem").write_bytes(b"\0" * 20_001)
    (tmp_path / "junk.r0").write_bytes(b"\x30junk")
    (tmp_path / "certificate.r1").write_bytes(authority.identity.certificate.public_bytes(Encoding.PEM))
    os.mkfifo(tmp_path / "pipe.r0")
    (tmp_path / "bad.namespaces").write_text("PERMIT everything")
    (tmp_path / "bytes.signing_policy").write_bytes(b"\xff")
    anchors = load_anchors(tmp_path, limits=AnchorLimits(certificate_bytes=20_000))
    assert anchors.certificates == (authority.identity.certificate,)
    report = report_anchors(anchors, NOW)
    verdicts = {each.names[0]: each.verdict for each in report.entries}
    assert verdicts.pop("ca.pem") is FileVerdict.USABLE
    assert verdicts.pop("ca.crl.pem") is FileVerdict.USABLE
    assert set(verdicts.values()) == {FileVerdict.UNUSABLE}
    assert len(verdicts) == len(report.problems) == 15
    assert all(each.problem for each in report.entries if each.verdict is FileVerdict.UNUSABLE)
    assert len(anchors.crls_of(authority.identity.subject)) == 1


@pytest.mark.threat("T23")
def test_an_unreadable_file_is_skipped_and_reported(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.write_to(tmp_path)
    (tmp_path / "secret.pem").write_bytes(authority.identity.certificate.public_bytes(Encoding.PEM))
    honest = os.open

    def refuse(path: os.PathLike[str], *rest: int, **named: int) -> int:
        # Tests may run as root, whom no mode keeps out.
        if str(path).endswith("secret.pem"):
            raise PermissionError(13, "Permission denied")
        return honest(path, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    anchors = load_anchors(tmp_path)
    assert anchors.certificates == (authority.identity.certificate,)
    assert any("secret.pem" in said and "Permission denied" in said for said in anchors.problems)


@pytest.mark.threat("T23")
def test_an_authority_with_the_serial_number_zero_is_usable_and_nothing_is_warned(tmp_path: Path) -> None:
    authority = Authority.create("Old CA")
    own = authority.identity
    for serial in (0, -5):
        odd = altered(own.certificate, own.key, Oddity(serial_number=serial))
        path = tmp_path / f"{serial}.pem"
        path.write_bytes(odd.public_bytes(Encoding.PEM))
        # Warnings are errors in tests.
        assert load_anchors(path).certificates == (odd,)


@pytest.mark.threat("T23")
def test_a_name_that_is_too_long_is_reported_and_nothing_is_warned(authority: Authority, tmp_path: Path) -> None:
    authority.write_to(tmp_path)
    own = Authority.create("x" * 64)
    der = own.identity.certificate.public_bytes(Encoding.DER)
    (tmp_path / "longest.pem").write_bytes(der)
    # The common name becomes a country of 64 letters.
    spoiled = der.replace(b"\x06\x03\x55\x04\x03\x0c\x40", b"\x06\x03\x55\x04\x06\x0c\x40")
    (tmp_path / "spoiled.pem").write_bytes(spoiled)
    anchors = load_anchors(tmp_path)
    assert len(anchors.certificates) == 2
    assert [said for said in anchors.problems if "2.5.4.6 of a name has 64 bytes" in said]


@pytest.mark.threat("T23")
def test_an_expired_authority_and_crl_are_told_from_usable_ones(authority: Authority, tmp_path: Path) -> None:
    old = Authority.create("Old CA", not_before=NOW - 3 * YEAR, not_after=NOW - YEAR)
    early = Authority.create("Early CA", not_before=NOW + YEAR, not_after=NOW + 2 * YEAR)
    write_authority(tmp_path, authority)
    write_authority(tmp_path, old, crl=old.crl(last_update=NOW - 2 * YEAR, next_update=NOW - YEAR))
    write_authority(tmp_path, early, crl=early.crl(last_update=NOW + YEAR, next_update=NOW + 2 * YEAR))
    report = report_anchors(load_anchors(tmp_path), NOW)
    for kind in (FileKind.CERTIFICATE, FileKind.CRL):
        for verdict in (FileVerdict.USABLE, FileVerdict.EXPIRED, FileVerdict.NOT_YET_VALID):
            assert report.count(kind, verdict) == 1
    assert len(report.problems) == 2


@pytest.mark.threat("T23")
def test_no_usable_anchor_is_an_error(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "only.crl.pem").write_bytes(authority.crl().public_bytes(Encoding.PEM))
    (tmp_path / "empty").mkdir()
    for path in (tmp_path, tmp_path / "empty", tmp_path / "only.crl.pem"):
        with pytest.raises(TrustAnchorError, match="no usable trust anchor"):
            load_anchors(path)
    for path in (tmp_path / "missing", tmp_path / "only.crl.pem" / "below"):
        with pytest.raises(TrustAnchorError, match="cannot be read"):
            load_anchors(path)


def test_a_directory_with_too_much_in_it_is_refused(authority: Authority, tmp_path: Path) -> None:
    authority.write_to(tmp_path)
    with pytest.raises(TrustAnchorError, match="2 entries; 1"):
        load_anchors(tmp_path, limits=AnchorLimits(files=1))


def test_what_was_read_is_kept_until_a_file_changes(authority: Authority, tmp_path: Path) -> None:
    write_authority(tmp_path, authority)
    first = load_anchors(tmp_path)
    assert load_anchors(tmp_path) is first
    other = Authority.create("Other CA")
    write_authority(tmp_path, other)
    second = load_anchors(tmp_path)
    assert len(second.certificates) == 2
    crl = next(iter(tmp_path.glob("*.r0")))
    crl.write_bytes(crl.read_bytes() + b"\n")
    third = load_anchors(tmp_path)
    assert third is not second
    for name in tmp_path.iterdir():
        if name.is_symlink():
            name.unlink()
            break
    assert load_anchors(tmp_path) is not third


def test_a_run_reads_each_path_once(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_authority(tmp_path, authority)
    shelf = AnchorShelf()
    seen: list[Path] = []
    found: list[TrustAnchors] = []
    honest = anchor_files.list_entries

    def record(directory: Path, limits: AnchorLimits) -> tuple[Entry, ...]:
        seen.append(directory)
        return honest(directory, limits)

    monkeypatch.setattr("coppice.subscription.anchors.list_entries", record)
    threads = [threading.Thread(target=lambda: found.append(shelf.load(tmp_path))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1
    assert len({id(each) for each in found}) == 1
    for _ in range(2):
        with pytest.raises(TrustAnchorError, match="cannot be read"):
            shelf.load(tmp_path / "missing")


def test_only_the_crls_that_are_asked_for_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authorities = [Authority.create(f"CA {number}") for number in range(8)]
    for number, each in enumerate(authorities):
        write_authority(tmp_path, each, encoding=Encoding.DER if number % 2 else Encoding.PEM)
    read: list[Path] = []
    honest = anchor_files.read_objects

    def record(file: NamedFile, limits: AnchorLimits) -> object:
        if file.kind is FileKind.CRL:
            read.append(file.path)
        return honest(file, limits)

    monkeypatch.setattr(anchor_contents, "read_objects", record)
    anchors = load_anchors(tmp_path)
    for each in authorities[:2]:
        (crl,) = anchors.crls_of(each.identity.subject)
        assert crl.issuer == each.identity.certificate.subject
    assert len(read) == 2


def test_of_a_grid_directory_only_what_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authorities = [Authority.create(f"CA number {number}") for number in range(8)]
    for each in authorities:
        write_authority(tmp_path, each, namespaces=["/DC=org/.*"])
    read: list[str] = []
    honest = anchor_files.read_objects

    def record(file: NamedFile, limits: AnchorLimits) -> object:
        read.append(file.path.name)
        return honest(file, limits)

    def record_text(text: str) -> object:
        read.append("policy")
        return read_namespaces(text)

    monkeypatch.setattr(anchor_contents, "read_objects", record)
    monkeypatch.setattr(anchor_contents, "read_namespaces", record_text)
    anchors = load_anchors(tmp_path)
    assert len(read) == 1
    for each in authorities[-2:]:
        assert anchors.named(each.identity.certificate.subject) == (each.identity.certificate,)
        assert each.identity.subject in anchors.namespaces_of(each.identity.certificate.subject).rules
    assert len(read) <= 5
    # What is not found by the name of a file is looked for everywhere.
    assert anchors.named(Authority.create("Stranger").identity.certificate.subject) == ()
    assert len(anchors.certificates) == 8
    (tmp_path / "misnamed.crt").write_bytes(
        Authority.create("Misnamed").identity.certificate.public_bytes(Encoding.DER)
    )
    (found,) = load_anchors(tmp_path).named(make_name("Misnamed"))
    assert found.subject == make_name("Misnamed")


def test_an_authority_under_a_wrong_hash_is_found_all_the_same(tmp_path: Path) -> None:
    honest, other = Authority.create("CA"), Authority.create("Other CA")
    write_authority(tmp_path, honest)
    (tmp_path / "01234567.0").write_bytes(other.identity.certificate.public_bytes(Encoding.PEM))
    anchors = load_anchors(tmp_path)
    assert anchors.holds(other.identity.certificate)
    assert anchors.holds(honest.identity.certificate)


def test_a_crl_in_a_file_of_certificates_is_reported_and_not_used(authority: Authority, tmp_path: Path) -> None:
    both = authority.identity.certificate.public_bytes(Encoding.PEM) + authority.crl().public_bytes(Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(both)
    anchors = load_anchors(tmp_path)
    assert anchors.crls_of(authority.identity.subject) == ()
    assert any("its name must end in .r0 or .crl" in said for said in anchors.problems)


def test_a_file_of_several_crls_gives_each(tmp_path: Path) -> None:
    first, second = Authority.create("First CA"), Authority.create("Second CA")
    write_authority(tmp_path, first, with_crl=False)
    both = b"words before\n" + b"".join(one.crl().public_bytes(Encoding.PEM) for one in (first, second))
    (tmp_path / "all.crl").write_bytes(both)
    anchors = load_anchors(tmp_path)
    for each in (first, second):
        assert [crl.issuer for crl in anchors.crls_of(each.identity.subject)] == [each.identity.certificate.subject]


def test_loading_many_authorities_is_quick(tmp_path: Path) -> None:
    authority = Authority.create("CA")
    for number in range(80):
        write_authority(tmp_path, authority, alias=f"ca{number}", with_crl=False)
    started = time.process_time()
    load_anchors(tmp_path)
    assert time.process_time() - started < 1


def test_many_threads_read_the_same_anchors(tmp_path: Path) -> None:
    authorities = [Authority.create(f"CA number {number}") for number in range(4)]
    for place in ("one", "two"):
        for each in authorities:
            write_authority(tmp_path / place, each, namespaces=["/DC=org/.*"])
    (tmp_path / "two" / "more.crt").write_bytes(authorities[0].identity.certificate.public_bytes(Encoding.DER))
    done: list[object] = []

    def use(place: str, first: int) -> None:
        anchors = load_anchors(tmp_path / place)
        own = authorities[first].identity
        asked: list[Callable[[], object]] = [
            lambda: anchors.named(own.certificate.subject),
            lambda: anchors.crls_of(own.subject),
            lambda: anchors.namespaces_of(own.certificate.subject).rules,
            lambda: anchors.certificates,
            lambda: report_anchors(anchors, NOW).entries,
        ]
        done.extend(bool(asked[(first + step) % len(asked)]()) for step in range(len(asked)))

    threads = [
        threading.Thread(target=use, args=(place, n % 4), daemon=True) for n in range(8) for place in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert done == [True] * 80
