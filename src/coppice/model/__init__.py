# SPDX-License-Identifier: Apache-2.0
"""The nouns that every stage shares: frozen, typed, standard library only, no I/O."""
