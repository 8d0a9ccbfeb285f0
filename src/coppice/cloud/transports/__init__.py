# SPDX-License-Identifier: Apache-2.0
"""How a cloud that fetches images itself gets at their bytes: the `Transport` plug-in kind.

Read `transport` for the protocol, `members` for the transports there are.
"""
