# SPDX-License-Identifier: Apache-2.0
"""The publisher ``webdav``: a collection of a WebDAV server (RFC 4918), or a server that takes plain HTTP PUT.

Images are put under a temporary name, read back, and moved to their own, which is free. Lists are put in place: MOVE
over what is there is no one step, because the server deletes the destination before (RFC 4918, 9.9.3), and readers of
such a server do miss the list in between. A server of which PUT is no one step and MOVE is can be told so.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree as ET

from coppice.atomic import PARTIAL_SUFFIX
from coppice.errors import PublicationError, TransferTooLargeError
from coppice.http.message import BodyFile
from coppice.imagelist.place import (
    IMAGES_FOLDER,
    NOTES_FOLDER,
    SMALL_LIMIT_BYTES,
    Facts,
    Held,
    Kind,
    file_path,
    is_partial,
    last_component,
    partial_name,
    shown_names,
)
from coppice.imagelist.upload import is_abandoned, owner
from coppice.imagelist.web import Web

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from coppice.imagelist.model import ListedImage
    from coppice.monitor import Monitor, Task
    from coppice.settings.driver_options import Options

OK, CREATED, NO_CONTENT, MULTI_STATUS = 200, 201, 204, 207
NOT_FOUND, NOT_ALLOWED, CONFLICT, PRECONDITION_FAILED = 404, 405, 409, 412
_WRITTEN = (OK, CREATED, NO_CONTENT)
_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
_PROPERTIES = (
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<propfind xmlns="DAV:"><prop><resourcetype/><getlastmodified/></prop></propfind>'
)
_FOLDERS = {Kind.LIST: "", Kind.IMAGE: f"{IMAGES_FOLDER}/", Kind.NOTE: f"{NOTES_FOLDER}/"}


class WebDavPlace:
    """A collection of a server.

    Args:
        url: Of the collection, where it is written.
        read_url: Of the collection, where subscribers read it.
        web: Asks the server.
        is_plain: The server takes PUT, GET and DELETE only: nothing can be listed there, so nothing is ever removed.
        moves_lists: Lists are replaced by MOVE.
        reads_back: Images are read back after they were put.
    """

    def __init__(
        self, url: str, read_url: str, web: Web, *, is_plain: bool, moves_lists: bool, reads_back: bool
    ) -> None:
        self._url = url.rstrip("/")
        self._read_url = read_url.rstrip("/")
        self._web = web
        self._is_plain = is_plain
        self._moves_lists = moves_lists
        self._reads_back = reads_back
        self._made: set[Kind] = set()

    @property
    def label(self) -> str:
        """Return the collection's URL."""
        return self._url

    def prepare(self, files: Mapping[str, Path], monitor: Monitor) -> None:
        """Do nothing: addresses are made of names."""

    def address(self, kind: Kind, name: str) -> str:
        """Return the URI below the one that subscribers read."""
        return f"{self._read_url}/{quote(file_path(kind, name))}"

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the members of the folder; a server that cannot list has none that could be removed."""
        return shown_names(kind, (name for name, _ in self._members(kind)))

    def meant_by(self, uri: str) -> tuple[str, ...]:
        """Return the last component of ``uri``."""
        return last_component(uri)

    def describe(self, name: str) -> Held | None:
        """Ask for the size and the entity tag; a weak tag is no stamp.

        Raises:
            PublicationError: The server does not say the size.
        """
        url = self._at(Kind.IMAGE, name)
        reply = self._web.ask("HEAD", url, expected=(OK, NOT_FOUND))
        if reply.status == NOT_FOUND:
            return None
        length = reply.header("content-length") or ""
        if not re.fullmatch(r"[0-9]{1,18}", length):
            length = self._length_of_nothing(url)
        tag = reply.header("etag") or ""
        return Held(size_bytes=int(length), stamp=tag if _STRONG_TAG.fullmatch(tag) else None)

    def put(self, name: str, source: Path, facts: Facts, image: ListedImage | None, task: Task) -> None:
        """Put a file under a temporary name, read it back, and move it; of a plain server, PUT is one step.

        Raises:
            PublicationError: The server holds other bytes than it was given.
        """
        self._make_folder(Kind.IMAGE)
        final = self._at(Kind.IMAGE, name)
        temporary = final if self._is_plain else self._own(name, facts)
        body = BodyFile(path=source, size_bytes=facts.size_bytes)
        self._web.ask("PUT", temporary, expected=_WRITTEN, body=body, retry=True, task=task)
        task.note("verifying")
        if not self._found(temporary, facts, task):
            self._web.ask("DELETE", temporary, expected=(*_WRITTEN, 202, NOT_FOUND, NOT_ALLOWED))
            raise PublicationError(
                f"{self._url} holds other bytes of {name} than it was given",
                resolution="The list was not published. Ask whoever runs the server; a full disk can be the cause.",
                context={"image": name},
            )
        if temporary != final:
            self._move(temporary, final, overwrite=False)

    def holds(self, name: str, facts: Facts, task: Task) -> bool:
        """Read the file and compare."""
        return self._found(self._at(Kind.IMAGE, name), facts, task)

    def announce(self, images: Mapping[str, ListedImage]) -> None:
        """Do nothing: the list says it all."""

    def read(self, kind: Kind, name: str) -> bytes | None:
        """Return what is there."""
        reply = self._web.ask("GET", self._at(kind, name), expected=(OK, NOT_FOUND), limit_bytes=SMALL_LIMIT_BYTES)
        return None if reply.status == NOT_FOUND else reply.body

    def replace(self, kind: Kind, name: str, data: bytes) -> None:
        """Put a list or a note in place, or move it there when the place is told so.

        Raises:
            PublicationError: The server holds other bytes than it was given.
        """
        self._make_folder(kind)
        final = self._at(kind, name)
        if not self._moves_lists:
            self._web.ask("PUT", final, expected=_WRITTEN, body=data, retry=True)
            return
        temporary = self._beside(final, partial_name(name, secrets.token_hex(6)))
        self._web.ask("PUT", temporary, expected=_WRITTEN, body=data, retry=True)
        if self._web.ask("GET", temporary, expected=(OK,), limit_bytes=SMALL_LIMIT_BYTES).body != data:
            raise PublicationError(f"{self._url} holds other bytes of {name} than it was given")
        self._move(temporary, final, overwrite=True)

    def delete(self, kind: Kind, name: str) -> None:
        """Delete a file."""
        self._web.ask("DELETE", self._at(kind, name), expected=(*_WRITTEN, 202, NOT_FOUND))

    def sweep(self, *, older_than_seconds: float) -> None:
        """Delete temporary names that were last written to so long ago."""
        now = datetime.now(UTC)
        for kind in Kind:
            for name, modified in list(self._members(kind)):
                if is_partial(name) and modified and (now - modified).total_seconds() >= older_than_seconds:
                    url = f"{self._url}/{quote(_FOLDERS[kind] + name)}"
                    self._web.ask("DELETE", url, expected=(*_WRITTEN, 202, NOT_FOUND))

    def close(self) -> None:
        """Do nothing: each request has a connection of its own."""

    def _at(self, kind: Kind, name: str) -> str:
        return f"{self._url}/{quote(file_path(kind, name))}"

    def _own(self, name: str, facts: Facts) -> str:
        """Return a temporary URL that no other run has; what ended runs of this machine left of these bytes goes."""
        start = partial_name(name, f"{facts.sha512[:16]}-").removesuffix(PARTIAL_SUFFIX)
        final = self._at(Kind.IMAGE, name)
        for found, _ in list(self._members(Kind.IMAGE)):
            token = found.removeprefix(start).removesuffix(PARTIAL_SUFFIX)
            if found.startswith(start) and is_abandoned(token):
                self._web.ask("DELETE", self._beside(final, found), expected=(*_WRITTEN, 202, NOT_FOUND))
        return self._beside(final, partial_name(name, f"{facts.sha512[:16]}-{owner()}"))

    @staticmethod
    def _beside(url: str, name: str) -> str:
        return f"{url.rpartition('/')[0]}/{quote(name)}"

    def _length_of_nothing(self, url: str) -> str:
        """Some servers do not say the length of an empty file; what is longer is refused."""
        try:
            self._web.ask("GET", url, expected=(OK,), limit_bytes=0)
        except TransferTooLargeError as problem:
            message = f"the server does not say how long {url} is"
            raise PublicationError(message, context={"url": url}) from problem
        return "0"

    def _found(self, url: str, facts: Facts, task: Task) -> bool:
        """Tell whether these bytes are at ``url``; it may go at any moment."""
        reply = self._web.ask("HEAD", url, expected=(OK, NOT_FOUND))
        if reply.status == NOT_FOUND:
            return False
        if not self._reads_back:
            return reply.header("content-length") == str(facts.size_bytes)
        try:
            return self._web.facts(url, facts.size_bytes, task) == facts
        except PublicationError as problem:
            if problem.context.get("status") == NOT_FOUND:
                return False
            raise

    def _move(self, origin: str, destination: str, *, overwrite: bool) -> None:
        headers = {"Destination": destination, "Overwrite": "T" if overwrite else "F"}
        # Taken: another run put the same file first. What is there is looked at by whoever called.
        taken = () if overwrite else (PRECONDITION_FAILED,)
        reply = self._web.ask("MOVE", origin, expected=(*_WRITTEN, *taken), headers=headers)
        if reply.status == PRECONDITION_FAILED:
            self._web.ask("DELETE", origin, expected=(*_WRITTEN, 202, NOT_FOUND))

    def _make_folder(self, kind: Kind) -> None:
        if self._is_plain or kind in self._made:
            return
        for folder in dict.fromkeys(("", _FOLDERS[kind])):
            url = f"{self._url}/{folder}"
            if self._is_there(url):
                continue
            try:
                self._web.ask("MKCOL", url, expected=(CREATED, NOT_ALLOWED))
            except PublicationError:
                # Another run may have made it meanwhile; servers answer that with 405, or with 403.
                if not self._is_there(url):
                    raise
        self._made.add(kind)

    def _is_there(self, folder_url: str) -> bool:
        expected, headers = (MULTI_STATUS, NOT_FOUND), {"Depth": "0"}
        return self._web.ask("PROPFIND", folder_url, expected=expected, headers=headers).status == MULTI_STATUS

    def _members(self, kind: Kind) -> Iterator[tuple[str, datetime | None]]:
        """Yield name and date of the files in a folder (RFC 4918, 9.1)."""
        if self._is_plain:
            return
        url = f"{self._url}/{_FOLDERS[kind]}"
        headers = {"Depth": "1", "Content-Type": "application/xml; charset=utf-8"}
        reply = self._web.ask(
            "PROPFIND",
            url,
            expected=(MULTI_STATUS, NOT_FOUND),
            limit_bytes=SMALL_LIMIT_BYTES,
            body=_PROPERTIES,
            headers=headers,
        )
        if reply.status == MULTI_STATUS:
            yield from _files(reply.body, url)


def open_webdav(options: Options) -> WebDavPlace:
    """Return the place that the options describe.

    Raises:
        SettingsError: One is missing, unknown or of the wrong type.
    """
    url = options.text("url")
    place = WebDavPlace(
        url,
        options.text("read_url", url),
        Web.of(options),
        is_plain=options.choice("server", ("webdav", "put")) == "put",
        moves_lists=options.choice("replace_lists", ("put", "move")) == "move",
        reads_back=options.choice("verify", ("full", "size")) == "full",
    )
    options.finish()
    return place


def _files(body: bytes, url: str) -> Iterator[tuple[str, datetime | None]]:
    own = unquote(urlsplit(url).path).rstrip("/")
    for response in _document(body, url).iter("{DAV:}response"):
        path = unquote(urlsplit((response.findtext("{DAV:}href") or "").strip()).path)
        folder, _, name = path.rstrip("/").rpartition("/")
        is_collection = path.endswith("/") or response.find(".//{DAV:}resourcetype/{DAV:}collection") is not None
        if name and folder == own and not is_collection:
            yield name, _date(response.findtext(".//{DAV:}getlastmodified"))


def _document(body: bytes, url: str) -> ET.Element:
    try:
        text = body.decode("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise PublicationError(f"the server answers for {url} with a document type, which no listing has")
        return ET.fromstring(text)  # noqa: S314 - declarations, the danger of XML, were refused above
    except (UnicodeDecodeError, ET.ParseError, ValueError) as problem:
        raise PublicationError(
            f"the server's listing of {url} is not XML: {problem}",
            resolution="Check that the URL leads to a WebDAV collection.",
        ) from problem


def _date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found
