# SPDX-License-Identifier: Apache-2.0
"""The builder ``prebuilt``: a finished image, held against its definition; nothing is written into it."""
