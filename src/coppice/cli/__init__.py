# SPDX-License-Identifier: Apache-2.0
"""The command line: one file a noun; it talks to people and calls `coppice.workflows` or one stage's functions."""
