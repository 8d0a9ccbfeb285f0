# SPDX-License-Identifier: Apache-2.0
"""Runs pieces of work that need each other's results: as many at a time as allowed, none before what it needs."""
