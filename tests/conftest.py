# SPDX-License-Identifier: Apache-2.0
"""The fixtures and the guard of unit tests come from the plug-in ``coppice.testing.plugin``."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("coppice"):
        message = "the plug-in of the test kit is not registered: install the project (`make test` does)"
        raise pytest.UsageError(message)
