# SPDX-License-Identifier: Apache-2.0
"""``python -m coppice``."""

from __future__ import annotations

import sys

from coppice.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
