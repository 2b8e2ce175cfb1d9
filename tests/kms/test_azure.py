"""Azure's own client against a vault in memory. No test reaches Azure."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from broker.clock import system_clock
from broker.errors import KeyRefused, KeyUnavailable, SealBroken
from broker.kms.azure import AzureKeys
from broker.kms.azure_server import AzureServer
from broker.vault import Domain, KeyEncryptionKeys, WrappedKey
from tests.kms.contract import BOUND, KEY, Contract, new_domain
from tests.kms.key_vault import URL, FakeVault


@pytest.fixture
def vault() -> FakeVault:
    return FakeVault()


@pytest.fixture
async def kek(vault: FakeVault) -> AsyncIterator[AzureKeys]:
    keys = AzureKeys(AzureServer(URL, vault.client), "broker", system_clock)
    yield keys
    await keys.close()


class TestAzure(Contract):
    def fail(self, kek: KeyEncryptionKeys) -> None:
        vault_of(kek).is_down = True

    def refuse(self, kek: KeyEncryptionKeys, domain: Domain) -> None:
        assert domain.ehr
        vault_of(kek).refuses = 403


def vault_of(kek: KeyEncryptionKeys) -> FakeVault:
    assert isinstance(kek, AzureKeys)
    vault = getattr(kek.server._make, "__self__", None)
    assert isinstance(vault, FakeVault)
    return vault


async def test_nobody_passes_off_a_key_wrapped_with_the_public_half(kek: AzureKeys, vault: FakeVault) -> None:
    """Who can write to Redis has the public key, but not the one that signs."""
    domain = new_domain()
    genuine = await kek.wrap(domain, KEY, BOUND)
    _, name, version = genuine.kek.split(":")
    forged = await kek.server.wrap(name, version, b"f" * 32)

    with pytest.raises(SealBroken):
        await kek.unwrap(domain, replace(genuine, blob=genuine.blob[:96] + forged), BOUND)
    assert vault.keys.keys() == {name, "broker-signs-wrapped-keys"}


async def test_the_key_that_is_asked_follows_from_the_domain(kek: AzureKeys) -> None:
    domain, other = new_domain(), new_domain()
    genuine = await kek.wrap(other, KEY, BOUND)

    with pytest.raises(SealBroken, match="somebody else's"):
        await kek.unwrap(domain, WrappedKey(genuine.kek, genuine.blob), BOUND)


async def test_a_deleted_key_is_unusable_at_once_and_purged_later(kek: AzureKeys) -> None:
    domain = new_domain()
    name = (await kek.current(domain)).split(":")[1]
    (destroyed,) = await kek.destroy(domain)

    assert destroyed.kek == f"azurekv:{name}"
    assert destroyed.gone_at == pytest.approx(system_clock() + 90 * 86_400, abs=60)


async def test_where_the_broker_may_not_make_keys_a_new_ehr_is_refused(vault: FakeVault) -> None:
    kek = AzureKeys(AzureServer(URL, vault.client), "broker", system_clock, may_create=False)

    with pytest.raises(KeyRefused, match="create=no"):
        await kek.wrap(new_domain(), KEY, BOUND)
    assert vault.keys == {}


@pytest.mark.parametrize(("status", "is_refusal"), [(403, True), (404, True), (401, False), (429, False), (503, False)])
async def test_what_each_status_means(kek: AzureKeys, status: int, is_refusal: bool) -> None:  # noqa: FBT001  # a column of the table
    domain = new_domain()
    wrapped = await kek.wrap(domain, KEY, BOUND)
    vault_of(kek).refuses = status

    with pytest.raises(KeyUnavailable) as raised:
        await kek.unwrap(domain, wrapped, BOUND)
    assert isinstance(raised.value, KeyRefused) == is_refusal
