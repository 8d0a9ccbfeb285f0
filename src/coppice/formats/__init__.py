# SPDX-License-Identifier: Apache-2.0
"""Wire formats that two stages share, pure: bytes in, model out, and back.

``hepix`` image lists; ``descriptor`` documents; ``smime`` and ``cms`` signatures; ``names`` of certificates;
``strict_json`` underneath.
"""
