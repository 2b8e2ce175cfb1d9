"""Real servers for the key-management tests."""

from collections.abc import Iterator

import pytest

from tests.kms.openbao import OpenBao, running_openbao


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with running_openbao(tmp_path_factory.mktemp("openbao")) as server:
        yield server
