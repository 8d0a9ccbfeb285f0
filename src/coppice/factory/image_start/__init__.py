# SPDX-License-Identifier: Apache-2.0
"""The builder ``image``: from a finished image of Debian or Ubuntu to an appliance, without starting it."""
