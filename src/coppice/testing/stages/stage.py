# SPDX-License-Identifier: Apache-2.0
"""What a stage does: publish numbered versions of one list at a real server, spoil them, and tell how to subscribe."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar, Self

from coppice.subscription.model import Subscription, TrustBasis, TrustPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from coppice.database import Database
    from coppice.subscription.model import SourceReference

NOW = datetime.now(UTC).replace(microsecond=0)
NO_TRUST = TrustPolicy(endorsers=(), anchors=None)


class SourceStage:
    """A source at a server of its own; use it as a context.

    Attributes:
        driver: Of the source.
        basis: By what its lists come to be trusted.
        is_signed: Whether somebody signs: what was tampered with is found out then, and keys can be taken back.
        tampered_codes: With which of these errors a version is refused that was changed by whoever holds the server.
        failures: What `fail` can do.
        is_shared: Whether two sites can follow it.

    Args:
        directory: Of its own.
    """

    driver: ClassVar[str]
    basis: ClassVar[TrustBasis]
    is_signed: ClassVar[bool]
    tampered_codes: ClassVar[frozenset[str]] = frozenset()
    failures: ClassVar[tuple[str, ...]] = ("gone", "empty", "down")
    is_shared: ClassVar[bool] = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self.start()
        except BaseException:
            # What was started before is ended; what was not is no attribute yet.
            with contextlib.suppress(AttributeError):
                self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server."""

    def enter(self, database: Database) -> None:
        """Learn of the database of a site that is about to follow; before anything is published."""

    def stop(self) -> None:
        """End the server: nothing can be fetched any more."""

    @classmethod
    def close(cls) -> None:
        """End what stages of this class share, after the last of them."""

    def subscription(self) -> Subscription:
        """Return how a site subscribes, with the name ``demo``."""
        raise NotImplementedError

    def publish(self, number: int) -> Mapping[str, bytes]:
        """Publish version 1, 2, … of the list in place of what is there; to publish one again restores it.

        All versions list the same two images, an x86_64 and an aarch64 one; every version has other bytes of both. A
        higher number is a later date, none of them in the future.

        Returns:
            For each image its bytes as a site should get them, by architecture.
        """
        raise NotImplementedError

    def tamper(self) -> None:
        """Change what is published as one could who holds the server, but not the key. Only where `is_signed`."""
        raise NotImplementedError

    def fail(self, how: str) -> None:
        """Make the source fail.

        Args:
            how: ``gone``: nothing is there any more; ``empty``: no byte is, or nothing of its kind; ``down``: the
                server answers 503, or what is no server cannot be read.
        """
        raise NotImplementedError

    def distrust(self) -> None:
        """Take whoever signed out of what the subscription trusts: the keyring, key or anchors. Only where `is_signed`.

        The source itself stays as it is.
        """
        raise NotImplementedError

    def reference(self, **options: object) -> SourceReference:
        """Return the subscription's source with more options."""
        source = self.subscription().source
        return replace(source, options={**source.options, **options})
