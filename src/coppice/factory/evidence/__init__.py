# SPDX-License-Identifier: Apache-2.0
"""What a finished image holds, read from its bytes: its tree, its files by digest, where each comes from."""
