# SPDX-License-Identifier: Apache-2.0
"""The builder ``packer``: Packer, driven by a template that is rendered from the definition."""
