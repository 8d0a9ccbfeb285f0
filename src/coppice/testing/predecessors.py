# SPDX-License-Identifier: Apache-2.0
"""Databases as vmcatcher 0.6 and vmcaster 0.0.36 leave them, for tests of taking them over.

The tables are those that the two programs create on SQLite, column by column.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

VMCATCHER_TABLES = """
CREATE TABLE endorser (
    id INTEGER NOT NULL, identifier VARCHAR(50) NOT NULL, PRIMARY KEY (id), UNIQUE (identifier));
CREATE TABLE "endorserPrincible" (
    id INTEGER NOT NULL, hv_dn VARCHAR(50) NOT NULL, hv_ca VARCHAR(50) NOT NULL, endorser INTEGER,
    PRIMARY KEY (id), UNIQUE (hv_dn),
    FOREIGN KEY(endorser) REFERENCES endorser (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE subscription (
    id INTEGER NOT NULL, identifier VARCHAR(50) NOT NULL, description VARCHAR(200), uri VARCHAR(200) NOT NULL,
    authorised BOOLEAN NOT NULL, imagelist_latest INTEGER, updated DATETIME, "trustAnchor" INTEGER NOT NULL,
    "userName" VARCHAR(200), password VARCHAR(200), "updateMode" INTEGER NOT NULL,
    PRIMARY KEY (id), UNIQUE (identifier), UNIQUE (uri), CHECK (authorised IN (0, 1)));
CREATE TABLE "subscriptionAuth" (
    id INTEGER NOT NULL, subscription INTEGER, endorser INTEGER, authorised BOOLEAN NOT NULL, PRIMARY KEY (id),
    FOREIGN KEY(subscription) REFERENCES subscription (id) ON DELETE CASCADE ON UPDATE CASCADE,
    FOREIGN KEY(endorser) REFERENCES endorser (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CHECK (authorised IN (0, 1)));
CREATE TABLE "ImageDefinition" (
    id INTEGER NOT NULL, identifier VARCHAR(50) NOT NULL, latest INTEGER, cache INTEGER NOT NULL,
    subscription INTEGER, PRIMARY KEY (id), UNIQUE (identifier),
    FOREIGN KEY(subscription) REFERENCES subscription (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE "imageListInstance" (
    id INTEGER NOT NULL, data BLOB NOT NULL, data_hash VARCHAR(128) NOT NULL, expired DATETIME, sub_auth INTEGER,
    imported DATETIME NOT NULL, created DATETIME NOT NULL, expires DATETIME NOT NULL, version VARCHAR(50) NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(sub_auth) REFERENCES "subscriptionAuth" (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE "ImageInstance" (
    id INTEGER NOT NULL, description VARCHAR(50) NOT NULL, hypervisor VARCHAR(50) NOT NULL,
    sha512 VARCHAR(128) NOT NULL, uri VARCHAR(128) NOT NULL, os VARCHAR(50) NOT NULL, osversion VARCHAR(50) NOT NULL,
    arch VARCHAR(50) NOT NULL, version VARCHAR(50) NOT NULL, size INTEGER NOT NULL, title VARCHAR(100) NOT NULL,
    comments VARCHAR(100), "fkIdentifier" INTEGER, fkimagelistinstance INTEGER, PRIMARY KEY (id),
    FOREIGN KEY("fkIdentifier") REFERENCES "ImageDefinition" (id) ON DELETE CASCADE ON UPDATE CASCADE,
    FOREIGN KEY(fkimagelistinstance) REFERENCES "imageListInstance" (id) ON DELETE CASCADE ON UPDATE CASCADE);
"""
VMCASTER_TABLES = """
CREATE TABLE endorser (
    id INTEGER NOT NULL, subject VARCHAR(100) NOT NULL, PRIMARY KEY (id), UNIQUE (subject));
CREATE TABLE "endorserMetadata" (
    id INTEGER NOT NULL, "fkEndorser" INTEGER, "key" VARCHAR(200) NOT NULL, value VARCHAR(200) NOT NULL,
    PRIMARY KEY (id), FOREIGN KEY("fkEndorser") REFERENCES endorser (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE imagelist (
    id INTEGER NOT NULL, identifier VARCHAR(50) NOT NULL, updated DATETIME, PRIMARY KEY (id), UNIQUE (identifier));
CREATE TABLE "ImagelistMetadata" (
    id INTEGER NOT NULL, "fkImageList" INTEGER, "key" VARCHAR(200) NOT NULL, value VARCHAR(200) NOT NULL,
    PRIMARY KEY (id), FOREIGN KEY("fkImageList") REFERENCES imagelist (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE "Image" (
    id INTEGER NOT NULL, identifier VARCHAR(50) NOT NULL, PRIMARY KEY (id), UNIQUE (identifier));
CREATE TABLE "ImageMetadata" (
    id INTEGER NOT NULL, "fkImage" INTEGER, "key" VARCHAR(200) NOT NULL, value VARCHAR(200) NOT NULL,
    PRIMARY KEY (id), FOREIGN KEY("fkImage") REFERENCES "Image" (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE "Endorsement" (
    id INTEGER NOT NULL, "fkImageList" INTEGER, "fkEndorser" INTEGER, PRIMARY KEY (id),
    FOREIGN KEY("fkImageList") REFERENCES imagelist (id) ON DELETE CASCADE ON UPDATE CASCADE,
    FOREIGN KEY("fkEndorser") REFERENCES endorser (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE "ImageListImage" (
    id INTEGER NOT NULL, "fkImageList" INTEGER, "fkImage" INTEGER, PRIMARY KEY (id),
    FOREIGN KEY("fkImageList") REFERENCES imagelist (id) ON DELETE CASCADE ON UPDATE CASCADE,
    FOREIGN KEY("fkImage") REFERENCES "Image" (id) ON DELETE CASCADE ON UPDATE CASCADE);
"""


def write_vmcatcher(path: Path, rows: Mapping[str, Sequence[Mapping[str, object]]]) -> Path:
    """Write a vmcatcher database with ``rows`` (table → rows, by column); return its path."""
    return _write(path, VMCATCHER_TABLES, rows)


def write_vmcaster(path: Path, rows: Mapping[str, Sequence[Mapping[str, object]]]) -> Path:
    """Write a vmcaster database with ``rows`` (table → rows, by column); return its path."""
    return _write(path, VMCASTER_TABLES, rows)


def _write(path: Path, tables: str, rows: Mapping[str, Sequence[Mapping[str, object]]]) -> Path:
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(tables)
        for table, each in rows.items():
            for row in each:
                columns = ", ".join(f'"{column}"' for column in row)
                marks = ", ".join("?" * len(row))
                database.execute(f'INSERT INTO "{table}" ({columns}) VALUES ({marks})', tuple(row.values()))  # noqa: S608 - names out of tests
    return path
