# SPDX-License-Identifier: Apache-2.0
"""The publisher ``s3``: a bucket of any server that speaks Amazon's S3 API.

An object appears when it is whole, so no temporary names are needed. Each piece goes up with its MD5 and SHA-256, which
the server must check; what the server then says of the whole is compared, and where that is no digest of the bytes
(encrypted objects), they are read back. A large upload that was cut off is gone on with.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from coppice import atomic
from coppice.errors import PublicationError, SettingsError
from coppice.imagelist.bucket import NOT_FOUND, Bucket, Keys
from coppice.imagelist.place import (
    SMALL_LIMIT_BYTES,
    Facts,
    Held,
    Kind,
    file_path,
    last_component,
    shown_names,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.imagelist.model import ListedImage
    from coppice.monitor import Monitor, Task
    from coppice.settings.driver_options import Options

MIB = 1024 * 1024
LEAST_PART_BYTES, MOST_PART_BYTES = 5 * MIB, 1024 * MIB
"""Amazon's bounds: 5 MiB to 5 GiB; a part is held in memory, so the upper one is lower here."""
MOST_PARTS = 10_000
_CHUNK_BYTES = MIB
_PRECONDITION = frozenset({"412", "PreconditionFailed"})
_NO_UPLOAD = frozenset({"404", "NoSuchUpload"})


class S3Place:
    """A bucket, or what is below a prefix of it.

    Args:
        bucket: Asks the server.
        prefix: Below which keys lie; empty or with a slash at its end.
        url: Under which address subscribers find it.
        part_bytes: Size of a part of a large upload, and of the largest file that goes up in one piece.
        reads_back: Images are read back where the server says no digest of theirs.
    """

    def __init__(self, bucket: Bucket, prefix: str, url: str, *, part_bytes: int, reads_back: bool) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._url = url.rstrip("/")
        self._part_bytes = part_bytes
        self._reads_back = reads_back

    @property
    def label(self) -> str:
        """Return the address of the bucket."""
        return f"{self._bucket.label}/{self._prefix}".rstrip("/")

    def prepare(self, files: Mapping[str, Path], monitor: Monitor) -> None:
        """Do nothing: addresses are made of names."""

    def address(self, kind: Kind, name: str) -> str:
        """Return the URI below the one that subscribers read."""
        return f"{self._url}/{quote(file_path(kind, name))}"

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the keys of the folder."""
        start = self._key(kind, "any").rpartition("/")[0]
        start = f"{start}/" if start else ""
        pages = self._bucket.pages("list_objects_v2", "listing keys", Prefix=start, Delimiter="/")
        keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return shown_names(kind, (key.removeprefix(start) for key in keys))

    def meant_by(self, uri: str) -> tuple[str, ...]:
        """Return the last component of ``uri``."""
        return last_component(uri)

    def describe(self, name: str) -> Held | None:
        """Ask for the size and the entity tag."""
        found = self._bucket.call(
            "head_object", f"looking at {name}", none_for=NOT_FOUND, Key=self._key(Kind.IMAGE, name)
        )
        if found is None:
            return None
        return Held(size_bytes=int(found["ContentLength"]), stamp=str(found.get("ETag") or "") or None)

    def put(self, name: str, source: Path, facts: Facts, image: ListedImage | None, task: Task) -> None:
        """Send a file, in parts when it is large.

        Raises:
            PublicationError: The server holds other bytes than it was given.
        """
        key = self._key(Kind.IMAGE, name)
        if facts.size_bytes <= self._part_bytes:
            expected = self._put_whole(key, source, task)
        else:
            expected = self._put_parts(key, source, facts, task)
        if expected is not None and self._tag(key) == expected:
            return
        task.note("verifying")
        if self._reads_back and not self.holds(name, facts, task):
            if expected is not None:
                self.delete(Kind.IMAGE, name)
            raise PublicationError(
                f"{self.label} holds other bytes of {name} than it was given",
                resolution="The list was not published. Ask whoever runs the server.",
                context={"image": name},
            )

    def holds(self, name: str, facts: Facts, task: Task) -> bool:
        """Read the object and compare."""
        digest, size = hashlib.sha512(), 0
        try:
            for piece in self._bucket.pieces(self._key(Kind.IMAGE, name)):
                digest.update(piece)
                size += len(piece)
                if size > facts.size_bytes:
                    return False
        except FileNotFoundError:
            return False
        return Facts(size_bytes=size, sha512=digest.hexdigest()) == facts

    def announce(self, images: Mapping[str, ListedImage]) -> None:
        """Do nothing: the list says it all."""

    def read(self, kind: Kind, name: str) -> bytes | None:
        """Return what is there.

        Raises:
            PublicationError: It is far too large.
        """
        data = bytearray()
        try:
            for piece in self._bucket.pieces(self._key(kind, name)):
                data += piece
                if len(data) > SMALL_LIMIT_BYTES:
                    raise PublicationError(f"{name} at {self.label} is longer than {SMALL_LIMIT_BYTES} bytes")
        except FileNotFoundError:
            return None
        return bytes(data)

    def replace(self, kind: Kind, name: str, data: bytes) -> None:
        """Put an object: a reader sees the old one or the new."""
        self._bucket.call(
            "put_object",
            f"writing {name}",
            Key=self._key(kind, name),
            Body=data,
            ContentMD5=_base64(hashlib.md5(data, usedforsecurity=False).digest()),
            ContentType="application/octet-stream" if kind is Kind.LIST else "application/json",
            # Caches between here and a subscriber must not keep a list that was replaced.
            CacheControl="no-cache",
        )

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object."""
        self._bucket.call("delete_object", f"removing {name}", none_for=NOT_FOUND, Key=self._key(kind, name))

    def sweep(self, *, older_than_seconds: float) -> None:
        """Abort large uploads that were begun so long ago."""
        now = datetime.now(UTC)
        for upload in self._uploads(self._key(Kind.IMAGE, "any").removesuffix("any")):
            if (now - upload["Initiated"]).total_seconds() >= older_than_seconds:
                self._bucket.call(
                    "abort_multipart_upload",
                    "aborting an old upload",
                    none_for=_NO_UPLOAD,
                    Key=upload["Key"],
                    UploadId=upload["UploadId"],
                )

    def close(self) -> None:
        """End connections."""
        self._bucket.close()

    def _key(self, kind: Kind, name: str) -> str:
        return f"{self._prefix}{file_path(kind, name)}"

    def _tag(self, key: str) -> str | None:
        found = self._bucket.call("head_object", f"looking at {key}", none_for=NOT_FOUND, Key=key)
        return None if found is None else str(found.get("ETag", "")).strip('"')

    def _put_whole(self, key: str, source: Path, task: Task) -> str | None:
        """Send a file in one piece; return what its entity tag should be, None when another run was first."""
        with atomic.storage_errors("reading", source):
            data = source.read_bytes()
        digest = hashlib.md5(data, usedforsecurity=False)
        done = self._bucket.call(
            "put_object",
            f"writing {key}",
            none_for=_PRECONDITION,
            Key=key,
            Body=data,
            ContentMD5=_base64(digest.digest()),
            IfNoneMatch="*",
        )
        task.reach(len(data))
        return None if done is None else digest.hexdigest()

    def _put_parts(self, key: str, source: Path, facts: Facts, task: Task) -> str | None:
        part_bytes = max(self._part_bytes, -(-facts.size_bytes // MOST_PARTS))
        upload, there = self._upload(key)
        digests: list[bytes] = []
        with atomic.storage_errors("reading", source), source.open("rb") as stream:
            while data := stream.read(part_bytes):
                digest = hashlib.md5(data, usedforsecurity=False)
                digests.append(digest.digest())
                number = len(digests)
                if there.get(number) != (len(data), digest.hexdigest()):
                    self._bucket.call(
                        "upload_part",
                        f"writing part {number} of {key}",
                        Key=key,
                        UploadId=upload,
                        PartNumber=number,
                        Body=data,
                        ContentMD5=_base64(digest.digest()),
                    )
                task.advance(len(data))
        parts = [{"PartNumber": number, "ETag": f'"{digest.hex()}"'} for number, digest in enumerate(digests, 1)]
        done = self._bucket.call(
            "complete_multipart_upload",
            f"completing {key}",
            none_for=_NO_UPLOAD,
            Key=key,
            UploadId=upload,
            MultipartUpload={"Parts": parts},
        )
        # Gone: another run of the same file completed the same upload.
        return None if done is None else f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{number}"

    def _upload(self, key: str) -> tuple[str, dict[int, tuple[int, str]]]:
        """Return an upload for ``key``, the newest that was cut off or a new one, and its parts: size and MD5."""
        begun = sorted(
            (each for each in self._uploads(key) if each["Key"] == key),
            key=lambda each: cast("datetime", each["Initiated"]),
        )
        if not begun:
            made = self._bucket.call("create_multipart_upload", f"beginning {key}", Key=key)
            return str(cast("dict[str, Any]", made)["UploadId"]), {}
        upload = str(begun[-1]["UploadId"])
        pages = self._bucket.pages("list_parts", f"listing the parts of {key}", Key=key, UploadId=upload)
        found = (part for page in pages for part in page.get("Parts", ()))
        return upload, {int(part["PartNumber"]): (int(part["Size"]), part["ETag"].strip('"')) for part in found}

    def _uploads(self, prefix: str) -> list[dict[str, Any]]:
        pages = self._bucket.pages("list_multipart_uploads", "listing uploads", Prefix=prefix)
        return [each for page in pages for each in page.get("Uploads", ())]


def open_s3(options: Options) -> S3Place:
    """Return the place that the options describe.

    Raises:
        SettingsError: One is missing, unknown or of the wrong type.
    """
    endpoint, name = options.text("endpoint").rstrip("/"), options.text("bucket")
    access_key, secret_key = options.secret("access_key"), options.secret("secret_key")
    if access_key is None or secret_key is None:
        raise SettingsError("give `access_key_file` or `access_key_env`, and `secret_key_file` or `secret_key_env`")
    if not endpoint.startswith(("https://", "http://")):
        raise SettingsError("the option `endpoint` must be an http or https URL")
    bucket = Bucket(
        endpoint=endpoint,
        name=name,
        region=options.text("region", "us-east-1"),
        keys=Keys(access=access_key, secret=secret_key),
        addressing=options.choice("addressing", ("path", "virtual")),
        server_anchors=options.optional_path("server_anchors"),
        timeout_seconds=options.seconds("timeout", 60.0),
    )
    prefix = (options.optional_text("prefix") or "").strip("/")
    prefix = f"{prefix}/" if prefix else ""
    place = S3Place(
        bucket,
        prefix,
        options.text("url", f"{endpoint}/{quote(name)}/{quote(prefix)}"),
        part_bytes=options.size("part_size", 64 * MIB, least=LEAST_PART_BYTES, most=MOST_PART_BYTES),
        reads_back=options.choice("verify", ("full", "size")) == "full",
    )
    options.finish()
    return place


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
