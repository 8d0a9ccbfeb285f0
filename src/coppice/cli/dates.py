# SPDX-License-Identifier: Apache-2.0
"""Dates on the command line."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import click


class DateParameter(click.ParamType[datetime]):
    """An RFC 3339 instant, or a day, of which the last second (UTC) is meant."""

    name = "date"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read the instant."""
        if isinstance(value, datetime):
            return value
        try:
            return _read(str(value).strip())
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no date such as 2027-05-31 or 2027-05-31T12:00:00Z", param, ctx)


def _read(text: str) -> datetime:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    return datetime.combine(day, time(23, 59, 59), UTC)
