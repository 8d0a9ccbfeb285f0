# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from coppice.catalogue.model import EndorserIdentity, KeyKind
from coppice.cli.endorser_edit import changed_by, described
from coppice.errors import InputError
from coppice.model.endorser import DistinguishedName

pytestmark = pytest.mark.unit
TOKEN = "pkcs11:token=card;object=jane?module-path=/usr/lib/module.so"  # noqa: S105 - no secret
JANE = EndorserIdentity(
    name="jane",
    certificate=Path("/keys/jane.pem"),
    key=Path("/keys/jane.key"),
    passphrase_file=Path("/keys/phrase"),
    creator="Jane Doe",
    email="jane@example.org",
    subject=DistinguishedName.parse("/CN=Jane Doe"),
    issuer=DistinguishedName.parse("/CN=CA"),
)


def test_plain_values_are_set_in_their_order() -> None:
    changed = changed_by(JANE, ["creator=Jane", "email=j@example.org", "digest=sha384", "digest=sha512"])
    assert (changed.creator, changed.email, changed.digest) == ("Jane", "j@example.org", "sha512")
    assert changed.subject == JANE.subject


def test_another_certificate_or_key_may_be_somebody_elses() -> None:
    for assignment in ("certificate=/keys/new.pem", "key=/keys/new.key", f"key={TOKEN}", "pkcs12=/keys/jane.p12"):
        assert changed_by(JANE, [assignment]).subject is None


def test_the_kind_of_key_follows_what_is_named() -> None:
    assert changed_by(JANE, ["pkcs12=/keys/jane.p12"]).kind is KeyKind.PKCS12
    assert changed_by(JANE, ["pkcs12=/keys/jane.p12"]).certificate is None
    on_token = changed_by(JANE, [f"key={TOKEN}", "certificate="])
    assert (on_token.kind, on_token.key, on_token.certificate) == (KeyKind.PKCS11, TOKEN, None)
    back = changed_by(on_token, ["key=/keys/jane.key"])
    assert (back.kind, back.key) == (KeyKind.PEM, Path("/keys/jane.key"))


def test_there_is_one_source_of_the_passphrase() -> None:
    by_variable = changed_by(JANE, ["passphrase_variable=PHRASE"])
    assert (by_variable.passphrase_file, by_variable.passphrase_variable) == (None, "PHRASE")
    asked = changed_by(by_variable, ["ask-passphrase=yes"])
    assert (asked.passphrase_variable, asked.ask_passphrase) == (None, True)
    assert changed_by(asked, ["ask_passphrase=no"]).ask_passphrase is False
    assert changed_by(asked, ["ask_passphrase="]).ask_passphrase is False
    assert changed_by(JANE, ["passphrase_file="]).passphrase_file is None
    assert changed_by(by_variable, ["passphrase_variable="]).passphrase_variable is None
    by_file = changed_by(asked, ["passphrase_file=/keys/other"])
    assert (by_file.passphrase_file, by_file.ask_passphrase) == (Path("/keys/other"), False)


@pytest.mark.parametrize(
    "assignment",
    [
        "name=joe",
        "creator",
        "=x",
        "key=",
        "pkcs12=",
        "creator=",
        "email=",
        "digest=sha1",
        "ask_passphrase=maybe",
        "key=pkcs11:token=card",
        f"key={TOKEN}&pin-value=4711",
    ],
)
def test_what_cannot_be_set_is_refused(assignment: str) -> None:
    with pytest.raises(InputError) as caught:
        changed_by(JANE, [assignment])
    assert "4711" not in str(caught.value.as_dict())


def test_what_is_shown_says_where_the_passphrase_comes_from() -> None:
    assert described(JANE)["passphrase_source"] == "file"  # noqa: S105 - where it comes from
    assert described(changed_by(JANE, ["ask_passphrase=yes"]))["passphrase_source"] == "prompt"  # noqa: S105 - likewise
    assert described(changed_by(JANE, ["passphrase_variable=X"]))["passphrase_source"] == "variable"  # noqa: S105 - likewise
    assert described(changed_by(JANE, ["passphrase_file="]))["passphrase_source"] is None
