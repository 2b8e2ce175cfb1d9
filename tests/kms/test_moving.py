"""A keyring beside a service unwraps what it wrapped before, and wraps nothing new."""

import base64
from pathlib import Path

import pytest

from broker.errors import ConfigurationError, KeyUnavailable
from broker.kms.moving import MovingKeys
from broker.kms.opening import open_kek
from broker.vault import Domain, LocalKeyring
from tests.kms.openbao import OpenBao
from tests.kms.test_opening import TRANSIT

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
DOMAIN = Domain("moving", "epic")


def at(bao: OpenBao, **more: str) -> dict[str, str]:
    return {"BROKER_KMS": f"transit:{bao.address}/transit", "BROKER_KMS_TOKEN": bao.token, **more}


async def test_what_the_keyring_wrapped_unwraps_and_the_service_wraps_anew(openbao: OpenBao) -> None:
    before = await LocalKeyring([KEY]).wrap(DOMAIN, OTHER, b"record")
    kek = open_kek(at(openbao, BROKER_KEK=base64.b64encode(KEY).decode()))
    assert isinstance(kek, MovingKeys)

    after = await kek.wrap(DOMAIN, OTHER, b"record")

    assert [wrapped.kek.partition(":")[0] for wrapped in (before, after)] == ["local", "transit"]
    assert await kek.unwrap(DOMAIN, before, b"record") == await kek.unwrap(DOMAIN, after, b"record") == OTHER
    assert await kek.current(DOMAIN) == after.kek
    await kek.close()


async def test_the_service_alone_does_not_unwrap_what_a_keyring_wrapped(openbao: OpenBao) -> None:
    before = await LocalKeyring([KEY]).wrap(DOMAIN, OTHER, b"record")
    kek = open_kek(at(openbao))

    with pytest.raises(KeyUnavailable):
        await kek.unwrap(DOMAIN, before, b"record")
    await kek.close()


async def test_while_the_service_is_down_the_keyrings_own_still_unwrap_and_nothing_wraps() -> None:
    before = await LocalKeyring([KEY]).wrap(DOMAIN, OTHER, b"record")
    away = {"BROKER_KMS": "transit:http://127.0.0.1:9/transit", "BROKER_KMS_TOKEN": "t"}
    kek = open_kek({**away, "BROKER_KEK": base64.b64encode(KEY).decode()})

    assert await kek.unwrap(DOMAIN, before, b"record") == OTHER
    for refused in (kek.wrap(DOMAIN, OTHER, b"record"), kek.rotate(DOMAIN), kek.check()):
        with pytest.raises(KeyUnavailable):
            await refused
    await kek.close()


def test_a_bad_keyring_beside_a_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_kek({**TRANSIT, "BROKER_KEK_FILE": str(tmp_path / "nowhere")})
