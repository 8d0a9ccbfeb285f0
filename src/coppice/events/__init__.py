# SPDX-License-Identifier: Apache-2.0
"""The journal of what happened. Takes facts from workflows, gives `Event`s in their order."""
