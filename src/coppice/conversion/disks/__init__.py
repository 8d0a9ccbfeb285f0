# SPDX-License-Identifier: Apache-2.0
"""The formats of a disk: each module recognises one by its content, and looks at the whole of its metadata."""
