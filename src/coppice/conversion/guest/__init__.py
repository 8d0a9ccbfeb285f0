# SPDX-License-Identifier: Apache-2.0
"""What is in a disk, found out without starting it and without mounting it."""
