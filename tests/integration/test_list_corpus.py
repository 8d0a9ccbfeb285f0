# SPDX-License-Identifier: Apache-2.0
"""Crafted lists (``tests/data/lists``): each is judged as the table says, and OpenSSL agrees or it is said why."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from coppice.errors import (
    BundleError,
    KeyringError,
    TrustAnchorError,
    TrustError,
    UnverifiedSourceError,
    all_error_types,
)
from coppice.imagelist.model import Profile
from coppice.model.endorser import DistinguishedName
from coppice.subscription.anchors import load_anchors
from coppice.subscription.judgement import Outcome, Rule
from coppice.subscription.model import (
    NamespacePolicy,
    PinnedEndorser,
    RevocationPolicy,
    Subscription,
    TrustedVersion,
    TrustPolicy,
)
from coppice.subscription.rules import judge_list, verify_list

pytestmark = pytest.mark.integration
LISTS = Path(__file__).parents[1] / "data" / "lists"
TABLE: list[dict[str, Any]] = json.loads((LISTS / "manifest.json").read_text())
URI = "https://lists.example.org/demo.list"
CASES = [
    pytest.param(row, id=row["name"], marks=[pytest.mark.threat(number) for number in row["threats"]]) for row in TABLE
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    specification = importlib.util.spec_from_file_location("crafted_lists", LISTS / "make.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    directory = tmp_path_factory.mktemp("lists")
    return directory, module.make(directory)


@pytest.fixture(scope="module")
def corpus(made: tuple[Path, list[dict[str, Any]]]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def hashed(corpus: Path) -> Path:
    """The folders of trust anchors, with the links by which OpenSSL finds what is in them."""
    for folder in (corpus / "trust").iterdir():
        place = corpus / "hashed" / folder.name
        shutil.copytree(folder, place)
        subprocess.run(["openssl", "rehash", place], check=False, capture_output=True, timeout=60)
        assert any(each.suffix == ".0" for each in place.iterdir())
    return corpus / "hashed"


def subscription_of(row: dict[str, Any], corpus: Path) -> Subscription:
    options = row["options"]

    def option(name: str, default: str) -> str:
        return options[options.index(name) + 1] if name in options else default

    trust = TrustPolicy(
        endorsers=tuple(
            PinnedEndorser(subject=DistinguishedName.parse(subject), issuer=DistinguishedName.parse(issuer))
            for subject, issuer in row["endorsers"]
        ),
        anchors=corpus / "trust" / row["trust"],
        revocation=RevocationPolicy(option("--revocation", "require")),
        namespaces=NamespacePolicy(option("--namespaces", "automatic")),
        profile=Profile(option("--profile", "strict")),
        allow_sha1="--allow-sha1" in options,
        allow_host_certificate="--accept-host-certificate" in options,
    )
    return Subscription(name="crafted", uri=URI, list_identifier=None, trust=trust, added_at=datetime.now(UTC))


def circumstances(row: dict[str, Any], corpus: Path) -> dict[str, Any]:
    """Return what a list is held against; where another was verified before, what is remembered of it."""
    subscription = subscription_of(row, corpus)
    against: dict[str, Any] = {
        "subscription": subscription,
        "anchors": load_anchors(subscription.trust.anchors),
        "last": None,
        "now": datetime.now(UTC),
    }
    if row["before"] is not None:
        before = verify_list((corpus / row["before"]).read_bytes(), **against)
        content = before.content
        against["last"] = TrustedVersion(
            version=content.version, payload_checksum=before.payload_checksum, created=content.validity.created
        )
        against["subscription"] = replace(subscription, list_identifier=content.identifier)
    return against


def test_the_committed_table_is_what_the_script_makes(made: tuple[Path, list[dict[str, Any]]]) -> None:
    assert made[1] == TABLE


def test_there_are_enough_of_both_kinds_and_every_refusal_of_a_list_has_a_case() -> None:
    assert len({row["name"] for row in TABLE}) == len(TABLE)
    assert sum(row["code"] is not None for row in TABLE) >= 60
    assert sum(row["code"] is None for row in TABLE) >= 15
    codes = {kind.code for kind in all_error_types() if issubclass(kind, TrustError)}
    # The root of these errors is never raised; anchors that cannot be used are no list's fault; others are of sources
    # that have no list which an endorser signed, and of bundles.
    elsewhere = {kind.code for kind in (TrustError, TrustAnchorError, KeyringError, UnverifiedSourceError, BundleError)}
    assert {row["code"] for row in TABLE} - {None} == codes - elsewhere


@pytest.mark.parametrize("row", CASES)
def test_each_is_refused_with_its_code_or_accepted(row: dict[str, Any], corpus: Path) -> None:
    judgement = judge_list((corpus / row["file"]).read_bytes(), **circumstances(row, corpus))
    code = None if judgement.error is None else judgement.error.code
    assert code == row["code"], judgement.error
    assert (judgement.verified is None) is (row["code"] is not None)
    assert [each.rule for each in judgement.rules] == list(Rule)
    failed = [each for each in judgement.rules if each.outcome is Outcome.FAILED]
    if judgement.error is None:
        assert not failed
        assert all(each.outcome in {Outcome.PASSED, Outcome.WARNED} and each.compared for each in judgement.rules)
        return
    assert [each.rule.error.code for each in failed] == [row["code"]]
    assert failed[0].compared
    assert judgement.error.resolution or row["code"] in {"list-signature-weak", "signer-untrusted"}
    assert str(judgement.error).isprintable()


@pytest.mark.parametrize("row", CASES)
@pytest.mark.threat("T26")
def test_openssl_says_what_the_table_says_of_it(row: dict[str, Any], corpus: Path, hashed: Path) -> None:
    message = corpus / row["file"]
    start = message.read_bytes()[:20]
    form = "DER" if start[:1] == b"0" else "PEM" if start.startswith(b"-----BEGIN") else "SMIME"
    argv = ["openssl", "cms", "-verify", "-in", message, "-inform", form, "-CApath", hashed / row["trust"]]
    argv += ["-no-CAfile", "-no-CAstore", "-purpose", "any", "-crl_check_all", "-out", "/dev/null"]
    done = subprocess.run(argv, check=False, capture_output=True, timeout=60)
    assert ("accepts" if done.returncode == 0 else "refuses") == row["openssl"], done.stderr.decode()[-400:]


def test_where_the_two_differ_the_table_says_why() -> None:
    for row in TABLE:
        differ = (row["openssl"] == "accepts") is not (row["code"] is None)
        assert bool(row["why"]) is differ, row["name"]
