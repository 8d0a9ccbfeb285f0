# SPDX-License-Identifier: Apache-2.0
"""One suite of tests for all members of a plug-in kind; third parties run them too.

`clouds` holds what every cloud must do and `cloud_abilities` what some can do beside; `stand` says what a member's
tests give to them.
"""
