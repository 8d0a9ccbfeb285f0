# SPDX-License-Identifier: Apache-2.0
"""The builder ``bootstrap``: a definition of a Debian appliance in, disk images for BIOS and UEFI out."""
