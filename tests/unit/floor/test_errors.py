# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import pytest

from coppice import errors
from coppice.clock import FixedClock, ShiftedClock, SystemClock, to_rfc3339
from coppice.errors import CoppiceError, all_error_types

pytestmark = pytest.mark.unit


def test_every_error_has_a_code_of_its_own_and_is_drawn_in_the_tree() -> None:
    kinds = list(all_error_types())
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    for kind in kinds:
        assert kind.__name__ in (errors.__doc__ or ""), f"{kind.__name__} is not drawn in the tree"
        assert kind.__name__.endswith("Error")
        assert kind.exit_code != 0
        assert (kind.exit_code == 2) == (kind is errors.UsageError), "2 is a usage error's alone"


def test_an_error_keeps_all_it_says_across_processes() -> None:
    error = errors.OlderListError("older", details="d", resolution="r", context={"a": 1})
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made on the line itself
    assert isinstance(copy, errors.OlderListError)
    assert copy.as_dict() == error.as_dict()
    assert copy.as_dict()["code"] == "list-older"


def test_the_root_is_an_exception_and_prints_its_message() -> None:
    assert str(CoppiceError("what and where")) == "what and where"


def test_clocks_tell_aware_time_and_move_only_when_told() -> None:
    from datetime import UTC, datetime, timedelta

    fixed = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    assert fixed.now() == fixed.now()
    fixed.advance(timedelta(days=2))
    assert to_rfc3339(fixed.now()) == "2026-01-03T00:00:00Z"
    shifted = ShiftedClock()
    shifted.advance(timedelta(days=8))
    assert timedelta(days=8) - timedelta(minutes=1) < shifted.now() - SystemClock().now() <= timedelta(days=8)
    with pytest.raises(ValueError, match="naive"):
        FixedClock(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test
