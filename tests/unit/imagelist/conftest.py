# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.testing.authority import Authority, Identity, KeyType
from coppice.testing.simulator import Simulator


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.create("Example CA")


@pytest.fixture(scope="session")
def jane(authority: Authority) -> Identity:
    return authority.issue("Jane Doe")


@pytest.fixture(scope="session")
def jane_with_rsa(authority: Authority) -> Identity:
    return authority.issue("Jane Doe", key_type=KeyType.RSA_2048)


@pytest.fixture
def publisher(authority: Authority, jane: Identity) -> Simulator:
    simulator = Simulator.create(authority, endorser=jane)
    simulator.add_image()
    return simulator
