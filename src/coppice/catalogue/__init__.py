# SPDX-License-Identifier: Apache-2.0
"""Appliances, their immutable versions, who endorses which, and what goes into which list.

Takes `Descriptor`; gives `Selection` and `ApplianceVersion`.
"""
