# SPDX-License-Identifier: Apache-2.0
"""A publisher in memory: edit its list, take the signed message, or make a bad one.

::

    authority = Authority.create("Example CA")
    publisher = Simulator.create(authority)
    publisher.add_image(title="Debian 12", data=b"disk bytes")
    good = publisher.message()                  # an honest S/MIME message

    publisher.version = "2"                     # edit the content freely
    publisher.extra["ad:publisher"] = "tests"
    newer = publisher.message()

    tampered = publisher.tampered()             # a byte of the list changed after signing
    unsigned = publisher.unsigned()             # the JSON alone
    stranger = publisher.message(signer=authority.issue("Mallory"))
    expired = publisher.expired(now)            # an honest signature on a list that has expired
    older = publisher.message(version="1")

    publisher.write_to(directory)               # list and images, to be served or subscribed to by file://

Nothing here uses the product's own writer of lists, so that a test of the reader does not test one error by another.
"""

from __future__ import annotations

import copy
import hashlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from coppice import atomic
from coppice.formats.cms_sign import sign
from coppice.model.identifiers import ListIdentifier
from coppice.subscription.model import (
    ImageSelection,
    PinnedEndorser,
    RevocationPolicy,
    Subscription,
    TrustPolicy,
)

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.model.identifiers import ImageIdentifier
    from coppice.testing.authority import Authority, Identity

_DATE = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(slots=True, kw_only=True)
class Simulator:
    """One image list, its endorser and its images.

    Attributes:
        authority: Above the endorser.
        endorser: Who signs, and is named in the list.
        identifier: Of the list.
        version: Of the list.
        uri: Where it says that it lives.
        created: When it says that it was made.
        expires: When it expires.
        images: The ``hv:image`` objects, as they are written.
        files: Image file name → bytes.
        extra: More keys of the list; they replace those of the same name.
    """

    authority: Authority
    endorser: Identity
    identifier: str
    version: str
    uri: str
    created: datetime
    expires: datetime
    images: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def create(
        cls, authority: Authority, *, endorser: Identity | None = None, uri: str = "https://lists.example.org/demo.list"
    ) -> Simulator:
        """Return a publisher of an empty list that was made an hour ago and lives for four weeks."""
        now = datetime.now(UTC).replace(microsecond=0)
        return cls(
            authority=authority,
            endorser=endorser or authority.issue("Jane Doe"),
            identifier=str(uuid.uuid4()),
            version="1",
            uri=uri,
            created=now - timedelta(hours=1),
            expires=now + timedelta(days=28),
        )

    def add_image(self, *, title: str = "Debian 12", data: bytes = b"disk", **fields: object) -> dict[str, Any]:
        """List an image of these bytes; ``fields`` replace what is written, with ``_`` for ``:`` in their names."""
        identifier = str(uuid.uuid4())
        name = f"{identifier}.qcow2"
        self.files[name] = data
        image: dict[str, Any] = {
            "dc:identifier": identifier,
            "dc:title": title,
            "dc:description": "A test image",
            "hv:uri": f"{self.uri.rsplit('/', 1)[0]}/images/{name}",
            "hv:format": "qcow2",
            "hv:size": str(len(data)),
            "hv:version": "1",
            "hv:hypervisor": "KVM",
            "hv:ram_minimum": "512",
            "sl:checksum:sha512": hashlib.sha512(data).hexdigest(),
            "sl:arch": "x86_64",
            "sl:os": "Linux",
            "sl:osname": "Debian",
            "sl:osversion": "12",
            "sl:comments": "",
        }
        image.update({key.replace("_", ":", 1): value for key, value in fields.items()})
        self.images.append(image)
        return image

    def document(self) -> dict[str, Any]:
        """Return the list as JSON's objects; a copy, to be edited."""
        fields = {
            "dc:date:created": self.created.strftime(_DATE),
            "dc:date:expires": self.expires.strftime(_DATE),
            "dc:identifier": self.identifier,
            "dc:title": "Example list",
            "dc:description": "Test images",
            "dc:source": "https://lists.example.org/",
            "hv:version": self.version,
            "hv:uri": self.uri,
            "ad:vo": "vo.example.org",
            "hv:endorser": {
                "hv:x509": {
                    "dc:creator": "Jane Doe",
                    "hv:email": "jane@example.org",
                    "hv:ca": str(self.endorser.issuer),
                    "hv:dn": str(self.endorser.subject),
                }
            },
            "hv:images": [{"hv:image": image} for image in self.images],
            **self.extra,
        }
        return copy.deepcopy({"hv:imagelist": fields})

    def payload(self, *, version: str | None = None) -> bytes:
        """Return the list's JSON."""
        document = self.document()
        if version is not None:
            document["hv:imagelist"]["hv:version"] = version
        return json.dumps(document, indent=2).encode()

    def message(
        self,
        *,
        signer: Identity | None = None,
        payload: bytes | None = None,
        version: str | None = None,
        digest: str = "sha256",
    ) -> bytes:
        """Return the list signed as S/MIME; by another, or with other content, if told so."""
        identity = signer or self.endorser
        content = self.payload(version=version) if payload is None else payload
        return sign(content, certificate=identity.certificate, key=identity.key, chain=identity.chain, digest=digest)

    def tampered(self) -> bytes:
        """Return the signed list with its title changed afterwards."""
        return self.message().replace(b"Example list", b"Exanple list", 1)

    def unsigned(self) -> bytes:
        """Return the list without a signature."""
        return self.payload()

    def expired(self, now: datetime) -> bytes:
        """Return the list as it would be had it expired a day before ``now``, honestly signed."""
        document = self.document()
        document["hv:imagelist"]["dc:date:created"] = (now - timedelta(days=29)).strftime(_DATE)
        document["hv:imagelist"]["dc:date:expires"] = (now - timedelta(days=1)).strftime(_DATE)
        return self.message(payload=json.dumps(document).encode())

    def subscription(
        self,
        anchors: Path,
        *,
        name: str = "demo",
        images: tuple[ImageIdentifier, ...] = (),
        revocation: RevocationPolicy = RevocationPolicy.REQUIRE,
    ) -> Subscription:
        """Return a subscription that pins this publisher's endorser."""
        return Subscription(
            name=name,
            uri=self.uri,
            list_identifier=ListIdentifier(self.identifier),
            trust=TrustPolicy(
                endorsers=(PinnedEndorser(subject=self.endorser.subject, issuer=self.endorser.issuer),),
                anchors=anchors,
                revocation=revocation,
            ),
            selection=ImageSelection(images=images),
            added_at=self.created,
        )

    def write_to(self, directory: Path, *, message: bytes | None = None, name: str = "demo") -> Path:
        """Write the images and then ``<name>.list`` below ``directory``; return the list's path."""
        for file_name, data in self.files.items():
            atomic.write_bytes(directory / "images" / file_name, data)
        place = directory / f"{name}.list"
        atomic.write_bytes(place, self.message() if message is None else message)
        return place
