# SPDX-License-Identifier: Apache-2.0
"""Takes a folder of ``appliance.toml`` files; gives `coppice.definition.model.Definition`."""
