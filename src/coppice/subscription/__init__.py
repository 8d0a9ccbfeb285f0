# SPDX-License-Identifier: Apache-2.0
"""Takes a URL and whom to trust; gives `coppice.subscription.model.VerifiedImageList`, or a named error."""
