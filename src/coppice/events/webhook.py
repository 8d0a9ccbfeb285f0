# SPDX-License-Identifier: Apache-2.0
"""Hooks that are web servers: told by POST, signed as Standard Webhooks (1.0.0) says, so that libraries can verify it.

The signature is HMAC-SHA-256 over ``identifier.timestamp.body``, in the header ``webhook-signature``; beside it stand
``webhook-id`` (of the delivery) and ``webhook-timestamp`` (seconds since 1970).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING

from coppice.errors import CredentialError, HookFailedError, InputError, TransferError
from coppice.http.credential import read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.clock import Clock
    from coppice.events.message import Telling
    from coppice.http import Client
    from coppice.settings.model import HookSettings

ANSWER_LIMIT_BYTES = 1024 * 1024
_SECRET_PREFIX = "whsec_"  # noqa: S105 - how such secrets begin; no secret
_MINIMUM_SECRET_BYTES = 16
_ACCEPTED = range(200, 300)
# Named as answers, so that they are not followed: what was signed for one place is for no other.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class WebHook:
    """Posts each event to a server."""

    def __init__(self, hook: HookSettings, client: Client, clock: Clock, environ: Mapping[str, str]) -> None:
        self._hook = hook
        self._client = client
        self._clock = clock
        self._environ = environ
        self._key = b""

    def prepare(self) -> None:
        """Read the secret.

        Raises:
            HookFailedError: It cannot be read, or is too short.
        """
        hook = self._hook
        try:
            secret = read_secret(hook.secret_file, hook.secret_env, self._environ)
            self._key = signing_key(secret)
        except CredentialError as problem:
            raise HookFailedError(
                f"the hook {hook.name!r} has no secret that can be used: {problem.message}",
                resolution=problem.resolution,
                context={"hook": hook.name},
            ) from problem

    def tell(self, telling: Telling) -> str:
        """Post the event; return what the server said.

        Raises:
            HookFailedError: There was no answer, or another than 2xx.
        """
        hook, body = self._hook, telling.line()
        stamp = int(self._clock.now().timestamp())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": telling.delivery_id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": sign(self._key, telling.delivery_id, stamp, body),
        }
        try:
            reply = self._client.request(
                "POST",
                hook.url or "",
                expected=(*_ACCEPTED, *_REDIRECTS),
                limit_bytes=ANSWER_LIMIT_BYTES,
                body=body,
                headers=headers,
                server_anchors=hook.server_anchors,
                deadline_seconds=hook.timeout_seconds,
                # Whoever is told knows a delivery by its identifier, however often it comes.
                retry=True,
            )
        except (TransferError, InputError) as problem:
            raise HookFailedError(
                f"the hook {hook.name!r} was not told: {problem.message}",
                details=problem.details,
                resolution=problem.resolution,
                context={"hook": hook.name, **problem.context},
            ) from problem
        if reply.status in _REDIRECTS:
            raise HookFailedError(
                f"the hook {hook.name!r} was not told: its server redirects (status {reply.status})",
                resolution="Write the address that it leads to into `url`; a signed event goes nowhere else by itself.",
                context={"hook": hook.name, "status": reply.status},
            )
        said = reply.body[: hook.output_limit_bytes].decode("utf-8", errors="replace").replace("\x00", "")
        return f"status {reply.status}\n{said}".rstrip()


def signing_key(secret: str) -> bytes:
    """Return the key that a secret stands for: ``whsec_`` and base64, or the text itself.

    Raises:
        CredentialError: It is shorter than 16 bytes, or no base64.
    """
    key = secret.encode()
    if secret.startswith(_SECRET_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise CredentialError(f"what follows {_SECRET_PREFIX} is not base64") from None
    if len(key) < _MINIMUM_SECRET_BYTES:
        raise CredentialError(
            f"the secret is shorter than {_MINIMUM_SECRET_BYTES} bytes",
            resolution="Make one that nobody guesses: openssl rand -base64 32",
        )
    return key


def sign(key: bytes, delivery_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``.

    Args:
        key: From `signing_key`.
        delivery_id: Value of ``webhook-id``.
        timestamp: Value of ``webhook-timestamp``.
        body: What is sent.
    """
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode("ascii")
