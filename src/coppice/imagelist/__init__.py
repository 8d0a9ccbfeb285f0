# SPDX-License-Identifier: Apache-2.0
"""Takes a selection of the catalogue; gives a signed and published `coppice.imagelist.model.SignedImageList`."""
