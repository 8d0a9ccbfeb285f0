# SPDX-License-Identifier: Apache-2.0
"""An example of a cloud driver for Coppice."""
