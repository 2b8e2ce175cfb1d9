"""Against a real OpenBao, with the policy that the documentation gives."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.clock import system_clock
from broker.egress import Egress
from broker.errors import KeyRefused, KeyUnavailable, SealBroken
from broker.kms.transit import TransitKeys
from broker.kms.transit_server import TransitServer, token_reader, transit_egress
from broker.secret import Secret
from broker.vault import Domain, KeyEncryptionKeys, WrappedKey
from tests.kms.contract import BOUND, KEY, Contract, new_domain
from tests.kms.openbao import OpenBao, running_openbao


@pytest.fixture
async def kek(openbao: OpenBao) -> AsyncIterator[TransitKeys]:
    keys = TransitKeys(openbao.server(), "broker", system_clock)
    yield keys
    await keys.close()


class TestTransit(Contract):
    def fail(self, kek: KeyEncryptionKeys) -> None:
        """Ask where nobody listens."""
        assert isinstance(kek, TransitKeys)
        object.__setattr__(kek.server, "mount", "http://127.0.0.1:9/v1/transit")

    def refuse(self, kek: KeyEncryptionKeys, domain: Domain) -> None:
        """Ask for keys outside the policy."""
        object.__setattr__(kek, "prefix", f"denied-{domain.ehr}")


async def test_a_key_and_its_version_are_named(openbao: OpenBao, kek: TransitKeys) -> None:
    domain = Domain("clinic.east", "epic.main")

    assert await kek.current(domain) == "transit:broker.clinicDeast.epicDmain:1"
    assert await kek.rotate(domain) == "transit:broker.clinicDeast.epicDmain:2"
    facts = openbao.as_root("GET", "transit/keys/broker.clinicDeast.epicDmain")["data"]
    assert (facts["type"], facts["exportable"], facts["deletion_allowed"]) == ("aes256-gcm96", False, False)


async def test_two_replicas_make_one_key(openbao: OpenBao, kek: TransitKeys) -> None:
    other, domain = TransitKeys(openbao.server(), "broker", system_clock), new_domain()
    first, second = await kek.wrap(domain, KEY, BOUND), await other.wrap(domain, KEY, BOUND)
    await other.close()

    assert first.kek == second.kek
    assert await kek.unwrap(domain, second, BOUND) == KEY


async def test_a_key_that_could_leave_is_not_used(openbao: OpenBao, kek: TransitKeys) -> None:
    domain = new_domain()
    openbao.as_root("POST", f"transit/keys/broker.default.{domain.ehr}", {"type": "aes256-gcm96", "exportable": True})

    with pytest.raises(KeyRefused, match="is not a aes256-gcm96 key that stays there"):
        await kek.wrap(domain, KEY, BOUND)


async def test_a_version_that_was_withdrawn_is_refused(openbao: OpenBao, kek: TransitKeys) -> None:
    domain = new_domain()
    wrapped = await kek.wrap(domain, KEY, BOUND)
    await kek.rotate(domain)
    openbao.as_root("POST", f"transit/keys/broker.default.{domain.ehr}/config", {"min_decryption_version": 2})

    with pytest.raises(KeyRefused, match="destroyed or withdrawn"):
        await kek.unwrap(domain, wrapped, BOUND)


async def test_the_name_of_the_version_cannot_be_changed(kek: TransitKeys) -> None:
    """Who can write to Redis cannot make an old version look like the new one, and so keep it in use."""
    domain = new_domain()
    wrapped = await kek.wrap(domain, KEY, BOUND)

    with pytest.raises(SealBroken):
        await kek.unwrap(domain, WrappedKey(await kek.rotate(domain), wrapped.blob), BOUND)


async def test_a_token_that_has_ended_says_nothing_about_the_key(openbao: OpenBao, kek: TransitKeys) -> None:
    """A key that is refused is dropped at once; a token that nobody renewed must not do that."""
    domain = new_domain()
    wrapped = await kek.wrap(domain, KEY, BOUND)
    expired = TransitKeys(openbao.server(token="canary-token"), "broker", system_clock)

    with pytest.raises(KeyUnavailable, match="does not accept our token") as raised:
        await expired.unwrap(domain, wrapped, BOUND)
    with pytest.raises(KeyUnavailable, match="does not accept our token"):
        await expired.check()
    await expired.close()
    assert type(raised.value) is KeyUnavailable
    assert "canary-token" not in raised.value.detail


async def test_the_policy_lets_the_broker_do_no_more(openbao: OpenBao) -> None:
    server = openbao.server()
    for method, path in (
        ("GET", "keys?list=true"), ("GET", "export/encryption-key/broker.default"), ("GET", "backup/broker.default"),
        ("POST", "encrypt/other"), ("POST", "keys/other"), ("DELETE", "keys/other"),
    ):  # fmt: skip
        with pytest.raises(KeyRefused):
            await server.ask(method, path, {"plaintext": base64.b64encode(KEY).decode()} if method == "POST" else None)
    await server.close()


async def test_a_sealed_server_does_not_answer(tmp_path: Path) -> None:
    with running_openbao(tmp_path) as bao:
        kek = TransitKeys(bao.server(), "broker", system_clock)
        wrapped = await kek.wrap(Domain("t"), KEY, BOUND)
        bao.as_root("POST", "sys/seal")
        for asking in (kek.unwrap(Domain("t"), wrapped, BOUND), kek.check()):
            with pytest.raises(KeyUnavailable, match="503") as raised:
                await asking
            assert type(raised.value) is KeyUnavailable
        await kek.close()


async def test_the_token_is_read_anew_each_time(openbao: OpenBao, tmp_path: Path) -> None:
    file = tmp_path / "token"
    server = TransitServer(openbao.mount, token_reader(None, file), transit_egress(openbao.mount))
    kek = TransitKeys(server, "broker", system_clock)

    with pytest.raises(KeyUnavailable, match="BROKER_KMS_TOKEN_FILE cannot be read"):
        await kek.check()
    file.write_text("\n")
    with pytest.raises(KeyUnavailable, match="BROKER_KMS_TOKEN_FILE is empty"):
        await kek.check()
    file.write_text(openbao.token + "\n")
    await kek.check()
    await kek.close()


def test_no_token_is_printed() -> None:
    server = TransitServer("https://bao.example/v1/transit", token_reader(Secret("canary"), None), Egress())

    assert "canary" not in repr(server)
