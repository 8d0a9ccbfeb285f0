# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from coppice.catalogue.endorsers import Endorsers
from coppice.catalogue.model import EndorserIdentity, KeyKind
from coppice.catalogue.selections import Selections
from coppice.database import Database
from coppice.errors import DatabaseError, ExistsError, InputError, NotFoundError
from coppice.model.endorser import DistinguishedName

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit


@pytest.fixture
def database() -> Iterator[Database]:
    opened = Database("sqlite://")
    yield opened
    opened.close()


def identity(name: str = "jane") -> EndorserIdentity:
    return EndorserIdentity(
        name=name,
        certificate=Path("/keys/cert.pem"),
        key=Path("/keys/key.pem"),
        creator="Jane Doe",
        email="jane@example.org",
    )


TOKEN = EndorserIdentity(
    name="card",
    kind=KeyKind.PKCS11,
    certificate=None,
    key="pkcs11:token=card;object=jane?module-path=/usr/lib/softhsm.so",
    passphrase_variable="CARD_PIN",  # noqa: S106 - a variable's name
    ask_passphrase=True,
    digest="sha512",
    subject=DistinguishedName.parse("/DC=org/CN=Jane Doe"),
    issuer=DistinguishedName.parse("/DC=org/CN=Example CA"),
    creator="Jane Doe",
    email="jane@example.org",
)
BUNDLE = EndorserIdentity(
    name="bundle",
    kind=KeyKind.PKCS12,
    certificate=None,
    key=Path("/keys/jane.p12"),
    passphrase_file=Path("/keys/phrase"),
    creator="Jane Doe",
    email="jane@example.org",
)


@pytest.mark.parametrize("kept", [identity(), TOKEN, BUNDLE], ids=["pem", "pkcs11", "pkcs12"])
def test_an_endorser_is_remembered_as_it_was_added(database: Database, kept: EndorserIdentity) -> None:
    Endorsers(database).add(kept)
    assert Endorsers(database).get(kept.name) == kept


def test_the_same_name_again_replaces_where_the_key_lies(database: Database) -> None:
    endorsers = Endorsers(database)
    endorsers.add(identity("card"))
    endorsers.add(TOKEN)
    assert endorsers.all() == (TOKEN,)


def test_a_name_must_be_one(database: Database) -> None:
    with pytest.raises(InputError, match="cannot name an endorser"):
        Endorsers(database).add(identity("../jane"))


def test_an_endorser_is_forgotten_only_when_no_list_names_it(database: Database) -> None:
    endorsers = Endorsers(database)
    endorsers.add(identity())
    endorsers.add(identity("joe"))
    Selections(database).create(
        "general", title="Images", description="All", source="https://x/", endorser="jane", publisher="web"
    )
    assert [endorser.name for endorser in endorsers.all()] == ["jane", "joe"]
    assert (endorsers.lists_of("jane"), endorsers.lists_of("joe")) == (("general",), ())
    endorsers.forget("joe")
    with pytest.raises(ExistsError, match="general"):
        endorsers.forget("jane")
    with pytest.raises(NotFoundError, match="no endorser 'joe'"):
        endorsers.get("joe")
    with pytest.raises(NotFoundError, match="no endorser 'joe'"):
        endorsers.lists_of("joe")


@pytest.mark.parametrize(("column", "value"), [("kind", "stone tablet"), ("subject", '[["CN"]]'), ("issuer", "5")])
def test_what_cannot_be_is_told_as_a_damaged_database(database: Database, column: str, value: str) -> None:
    Endorsers(database).add(TOKEN)
    with database.session() as session:
        session.execute(text(f"UPDATE endorser SET {column} = :value"), {"value": value})  # noqa: S608 - from the table above
    with pytest.raises(DatabaseError, match="cannot be about the endorser 'card'"):
        Endorsers(database).all()
