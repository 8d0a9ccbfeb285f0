# SPDX-License-Identifier: Apache-2.0
"""Coppice keeps a cloud's virtual appliances fresh, from definition to retirement."""

__version__ = "0.1.0"
