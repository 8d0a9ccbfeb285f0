# SPDX-License-Identifier: Apache-2.0
"""`Bucket`: boto3 as the publisher uses it: nothing is taken from the environment, and errors are Coppice's own."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice.errors import (
    CoppiceError,
    NoSpaceError,
    PublicationError,
    ToolMissingError,
    TransferCutError,
    TransferStalledError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from coppice.settings.driver_options import Secret

NOT_FOUND = frozenset({"404", "NoSuchKey", "NotFound"})
_PIECE_BYTES = 1024 * 1024
_FULL = frozenset({"507", "413", "QuotaExceeded", "InsufficientStorage", "EntityTooLarge", "XMinioStorageFull"})
_DENIED = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Where the two keys of an account lie."""

    access: Secret
    secret: Secret


class Bucket:
    """A bucket at an endpoint.

    Args:
        endpoint: URL of the server.
        name: Of the bucket.
        region: That the server wants in signatures.
        keys: Of the account.
        addressing: ``path`` or ``virtual``: where the bucket's name stands.
        server_anchors: PEM file of authorities for the server's certificate; None: the machine's.
        timeout_seconds: To connect, and without a byte.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        name: str,
        region: str,
        keys: Keys,
        addressing: str,
        server_anchors: Path | None,
        timeout_seconds: float,
    ) -> None:
        self.label = f"{endpoint}/{name}"
        self._endpoint = endpoint
        self._name = name
        self._region = region
        self._keys = keys
        self._addressing = addressing
        self._server_anchors = server_anchors
        self._timeout_seconds = timeout_seconds
        self._made: Any = None

    def call(self, method: str, doing: str, *, none_for: Collection[str] = (), **arguments: Any) -> Any | None:
        """Call a method of the API; return its answer, or None for the error codes in ``none_for``.

        Raises:
            PublicationError: The server refused.
            NoSpaceError: A quota is full.
            TransferError: The server cannot be reached, or the connection failed.
        """
        with self._translated(doing):
            client = self._client()
            try:
                return getattr(client, method)(Bucket=self._name, **arguments)
            except client.exceptions.ClientError as problem:
                if set(_codes(problem)) & set(none_for):
                    return None
                raise

    def pages(self, method: str, doing: str, **arguments: Any) -> list[dict[str, Any]]:
        """Call a method that answers in pages, and return all of them.

        Raises:
            PublicationError: The server refused.
            TransferError: The server cannot be reached, or the connection failed.
        """
        with self._translated(doing):
            return list(self._client().get_paginator(method).paginate(Bucket=self._name, **arguments))

    def pieces(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of an object.

        Raises:
            FileNotFoundError: There is no such object.
            PublicationError: The server refused.
            TransferError: It could not be read.
        """
        found = self.call("get_object", f"reading {key}", none_for=NOT_FOUND, Key=key)
        if found is None:
            raise FileNotFoundError(key)
        with self._translated(f"reading {key}"):
            body = found["Body"]
            try:
                yield from body.iter_chunks(_PIECE_BYTES)
            finally:
                body.close()

    def close(self) -> None:
        """End connections; the next call makes new ones."""
        if self._made is not None:
            self._made.close()

    def _client(self) -> Any:
        if self._made is None:
            self._made = self._make()
        return self._made

    def _make(self) -> Any:
        boto3 = _boto3()
        import botocore.config
        import botocore.session

        session = botocore.session.Session()
        # What lies in a home directory is for other programs.
        for variable in ("config_file", "credentials_file"):
            session.set_config_variable(variable, os.devnull)
        session.set_config_variable("profile", None)
        config = botocore.config.Config(
            signature_version="s3v4",
            # The server gets the digest of each body with its signature, over plain HTTP and TLS alike.
            s3={"addressing_style": self._addressing, "payload_signing_enabled": True},
            connect_timeout=self._timeout_seconds,
            read_timeout=self._timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": 3},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies={},
        )
        return boto3.session.Session(botocore_session=session).client(
            "s3",
            endpoint_url=self._endpoint,
            region_name=self._region,
            aws_access_key_id=self._keys.access.read(),
            aws_secret_access_key=self._keys.secret.read(),
            verify=str(self._server_anchors) if self._server_anchors is not None else True,
            config=config,
        )

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        _boto3()
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as problem:
            raise self._refused(doing, problem) from problem
        except (BotoCoreError, OSError, ValueError) as problem:
            raise self._failed(doing, problem) from problem

    def _refused(self, doing: str, problem: Any) -> CoppiceError:
        codes = _codes(problem)
        context = {"endpoint": self._endpoint, "bucket": self._name, "status": codes[-1]}
        said = f"{codes[0]}: {problem.response.get('Error', {}).get('Message', '')}"[:300]
        if set(codes) & _FULL:
            return NoSpaceError(
                f"{self.label} takes no more bytes: {doing}",
                details=said,
                resolution="Free space there, or ask for a larger quota; then publish again.",
                context=context,
            )
        if set(codes) & _DENIED:
            return PublicationError(
                f"{self.label} does not allow it: {doing}",
                details=said,
                resolution="Check the keys, and what their owner may do with the bucket.",
                context=context,
            )
        return PublicationError(
            f"{self.label} refused: {doing}",
            details=said,
            resolution="What is published stays as it is. Check endpoint, bucket and region.",
            context=context,
        )

    def _failed(self, doing: str, problem: Exception) -> CoppiceError:
        from botocore import exceptions

        context = {"endpoint": self._endpoint, "bucket": self._name}
        if isinstance(problem, exceptions.ReadTimeoutError):
            return TransferStalledError(
                f"{self.label} was silent for too long while {doing}", details=str(problem), context=context
            )
        if isinstance(problem, exceptions.EndpointConnectionError | exceptions.ConnectTimeoutError):
            return UnreachableError(
                f"{self._endpoint} cannot be reached",
                details=str(problem),
                resolution="Check that the server runs and that this machine may connect to it.",
                context=context,
            )
        if isinstance(problem, exceptions.ParamValidationError):
            return PublicationError(f"{self.label} cannot be asked: {doing}", details=str(problem), context=context)
        return TransferCutError(
            f"the connection to {self.label} broke while {doing}",
            details=str(problem),
            resolution="Publish again; what is published stays as it is.",
            context=context,
        )


def _codes(problem: Any) -> tuple[str, str]:
    """Return the API's error code and the HTTP status."""
    response = problem.response
    return (
        str(response.get("Error", {}).get("Code", "")),
        str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")),
    )


def _boto3() -> Any:
    try:
        import boto3
    except ImportError as problem:
        raise ToolMissingError(
            "the publisher s3 needs the Python package boto3",
            resolution="Install Coppice with it: pip install 'coppice[s3]'",
        ) from problem
    return boto3
