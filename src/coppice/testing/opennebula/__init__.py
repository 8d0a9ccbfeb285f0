# SPDX-License-Identifier: Apache-2.0
"""A simulator of an OpenNebula front-end, for tests.

It is no OpenNebula. It answers the XML-RPC calls that Coppice makes, in the shapes, with the codes, texts and states
that were recorded from a real ``oned`` 7.0.1 with a file-system datastore (`tests/data/opennebula`); a test replays
every recorded request and compares the answers. What was seen around the recordings holds too: sizes are found out
inside the call, files are really copied and URLs really fetched, so that checksums are real; an interrupted download
is appended to; files stay behind where they did. Beyond that it is made up: machines run at once, there are
permissions and no access control lists, a machine's XML is short, and the order of checks that no recording shows may
differ. What must hold for real servers is shown on one, and not here.

`OpenNebulaSimulator` is the server; `faults` says what can go wrong.
"""

from coppice.testing.opennebula.faults import Act, Copying, Fault, Faults, When
from coppice.testing.opennebula.objects import State
from coppice.testing.opennebula.refusal import Code, Refusal
from coppice.testing.opennebula.simulator import OpenNebulaSimulator

__all__ = ["Act", "Code", "Copying", "Fault", "Faults", "OpenNebulaSimulator", "Refusal", "State", "When"]
