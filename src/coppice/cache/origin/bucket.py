# SPDX-License-Identifier: Apache-2.0
"""``s3``: an object of a bucket (``s3://bucket/key``).

boto3 only signs: it makes a URL that is good for this one object and a while. What is fetched from there is fetched as
everything else is, with the same limits, address rules and ranges; a signed URL is never shown.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from coppice.cache.origin.named import is_named_by_site
from coppice.cache.origin.protocol import Origin
from coppice.errors import AddressRefusedError, CredentialError, ToolMissingError
from coppice.http.access import server_anchors_for
from coppice.http.credential import read_pair
from coppice.http.location import parse_location, show

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coppice.http import Client
    from coppice.http.access import Access
    from coppice.http.ranges import Body, Part

_BUCKET = re.compile(r"[a-z0-9A-Z][a-z0-9A-Z._-]{1,254}")
_LONGEST_SECONDS = 7 * 24 * 3600
"""For which a signature may hold (Signature Version 4, "Authenticating requests: using query parameters")."""
_INSTANCE_PROVIDERS = ("container-role", "iam-role")


class BucketOrigin(Origin):
    """An object of a bucket.

    Its keys are those of an access that is named for ``s3://bucket``. For a bucket that the site's settings name among
    their mirrors they are else boto3's: variables of the environment and the files of the Amazon tools. Servers that
    tell a machine about itself are not asked. For any other bucket, which only a list names, nothing is signed. The
    endpoint is the one that the files of the Amazon tools name.

    Args:
        uri: ``s3://bucket/key``.
        client: Asks.
        accesses: How servers are approached.

    Raises:
        AddressRefusedError: It is no such address.
    """

    many_at_once = True

    def __init__(self, uri: str, client: Client, accesses: Sequence[Access]) -> None:
        super().__init__(client, show(uri))
        parts = urlsplit(uri)
        self._bucket, self._key = parts.netloc, unquote(parts.path[1:])
        if not _BUCKET.fullmatch(self._bucket) or not self._key or parts.query or parts.fragment:
            raise AddressRefusedError(
                f"{self.shown} is no address of an object in a bucket",
                resolution="Write s3://bucket/key, with what is special in the key percent-encoded.",
                context={"url": self.shown},
            )
        self._accesses = accesses
        self._shows_own_keys = is_named_by_site(uri, client.settings)
        self._signer: Any = None

    @contextmanager
    def open(self, part: Part, deadline: float) -> Iterator[Body]:
        """Ask for it by a URL that was signed for this request."""
        url = self._signed_url()
        self.host = parse_location(url).authority
        with self.client.opened(
            url, part, deadline=deadline, server_anchors=server_anchors_for(self._accesses)
        ) as body:
            yield body

    def _signed_url(self) -> str:
        boto3 = _boto3()
        from botocore.exceptions import BotoCoreError

        try:
            if self._signer is None:
                self._signer = self._make(boto3)
            seconds = min(_LONGEST_SECONDS, int(self.client.settings.total_timeout_seconds) + 60)
            url: str = self._signer.generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket, "Key": self._key}, ExpiresIn=seconds
            )
        except (BotoCoreError, ValueError) as problem:
            raise CredentialError(
                f"a request for {self.shown} cannot be made: {problem}",
                resolution="Check the keys, the region and the endpoint in the files of the Amazon tools.",
                context={"url": self.shown},
            ) from problem
        return url

    def _make(self, boto3: Any) -> Any:
        import botocore.session
        from botocore import UNSIGNED
        from botocore.config import Config

        session = botocore.session.Session()
        resolver = session.get_component("credential_provider")
        resolver.providers = [each for each in resolver.providers if each.METHOD not in _INSTANCE_PROVIDERS]
        given: dict[str, Any] = {}
        pair = self._named_keys()
        if pair is not None:
            given = {"aws_access_key_id": pair[0], "aws_secret_access_key": pair[1]}
        is_signed = pair is not None or (self._shows_own_keys and session.get_credentials() is not None)
        config = Config(
            signature_version="s3v4" if is_signed else UNSIGNED,
            s3={"addressing_style": "auto"},
            proxies={},
        )
        region = session.get_config_variable("region") or "us-east-1"
        return boto3.session.Session(botocore_session=session).client("s3", region_name=region, config=config, **given)

    def _named_keys(self) -> tuple[str, str] | None:
        for access in self._accesses:
            parts = urlsplit(access.url)
            if access.credential is not None and (parts.scheme, parts.netloc) == ("s3", self._bucket):
                return read_pair(access.credential)
        return None


def _boto3() -> Any:
    try:
        import boto3
    except ImportError as problem:
        raise ToolMissingError(
            "addresses that begin with s3: need the Python package boto3",
            resolution="Install Coppice with it: pip install 'coppice[s3]'",
        ) from problem
    return boto3
