# SPDX-License-Identifier: Apache-2.0
"""Hostile image files, each with the one defect that it is named by, and the code with which it is refused."""
