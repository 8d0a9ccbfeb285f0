# SPDX-License-Identifier: Apache-2.0
"""An example of a transport for Coppice."""
