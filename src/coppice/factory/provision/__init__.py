# SPDX-License-Identifier: Apache-2.0
"""What a definition has done in a tree once its packages are there: accounts, files, provisioners, services."""
