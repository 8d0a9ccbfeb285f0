# SPDX-License-Identifier: Apache-2.0
"""Takes a build, or a foreign image's file; gives `coppice.descriptor.model.Descriptor`."""
