# SPDX-License-Identifier: Apache-2.0
"""Sources: where lists come from. One module a kind; `protocol` says what each must do."""
