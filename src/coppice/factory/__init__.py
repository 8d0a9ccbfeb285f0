# SPDX-License-Identifier: Apache-2.0
"""Takes a `coppice.definition.model.Definition`; gives a `coppice.factory.model.BuildResult` with its verdicts."""
