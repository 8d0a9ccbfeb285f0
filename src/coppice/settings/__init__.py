# SPDX-License-Identifier: Apache-2.0
"""Settings: TOML files, ``COPPICE_*`` variables and options in; one frozen `coppice.settings.model.Settings` out."""
