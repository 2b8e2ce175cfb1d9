"""Against a key ring in memory that speaks Google's messages. No test reaches Google."""

from collections.abc import AsyncIterator

import pytest
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError

from broker.clock import system_clock
from broker.errors import KeyRefused, KeyUnavailable
from broker.kms.google import GoogleKeys, GoogleServer
from broker.vault import Domain, KeyEncryptionKeys
from tests.kms.contract import BOUND, KEY, Contract, new_domain
from tests.kms.google_kms import RING, FakeGoogle


@pytest.fixture
def google() -> FakeGoogle:
    return FakeGoogle()


@pytest.fixture
async def kek(google: FakeGoogle) -> AsyncIterator[GoogleKeys]:
    keys = GoogleKeys(GoogleServer(lambda: google), RING, "broker", system_clock)
    yield keys
    await keys.close()


class TestGoogle(Contract):
    def fail(self, kek: KeyEncryptionKeys) -> None:
        fail_with(client_of(kek), exceptions.ServiceUnavailable("down"))

    def refuse(self, kek: KeyEncryptionKeys, domain: Domain) -> None:
        fail_with(client_of(kek), exceptions.PermissionDenied(domain.ehr))


def client_of(kek: KeyEncryptionKeys) -> FakeGoogle:
    assert isinstance(kek, GoogleKeys)
    assert isinstance(kek.server._made, FakeGoogle)
    return kek.server._made


def fail_with(google: FakeGoogle, error: Exception) -> None:
    def fail(_operation: str) -> None:
        raise error

    google.fails = fail


async def test_a_key_and_its_version_are_named(kek: GoogleKeys) -> None:
    long = Domain("clinic.east", "e" * 63)

    assert (await kek.current(Domain("default", "epic"))).startswith("gcpkms:broker-default-epic-")
    assert (await kek.rotate(long)).rpartition(":")[2] == "2"


async def test_every_version_is_destroyed_after_googles_grace(kek: GoogleKeys) -> None:
    domain = new_domain()
    first, second = await kek.current(domain), await kek.rotate(domain)
    destroyed = await kek.destroy(domain)

    assert [one.kek for one in destroyed] == [first, second]
    assert {round((one.gone_at - system_clock()) / 86_400) for one in destroyed} == {30}


async def test_where_the_broker_may_not_make_keys_a_new_ehr_is_refused(google: FakeGoogle) -> None:
    kek = GoogleKeys(GoogleServer(lambda: google), RING, "broker", system_clock, may_create=False)

    with pytest.raises(KeyRefused, match="create=no"):
        await kek.wrap(new_domain(), KEY, BOUND)
    assert google.keys == {}


@pytest.mark.parametrize(
    ("error", "is_refusal"),
    [
        (exceptions.PermissionDenied("x"), True),
        (exceptions.FailedPrecondition("x"), True),
        (exceptions.Unauthenticated("x"), False),
        (exceptions.ResourceExhausted("x"), False),
        (exceptions.DeadlineExceeded("x"), False),
        (exceptions.InternalServerError("x"), False),
        (DefaultCredentialsError("x"), False),
    ],
)
async def test_what_each_error_means(kek: GoogleKeys, error: Exception, is_refusal: bool) -> None:  # noqa: FBT001  # a column of the table
    domain = new_domain()
    wrapped = await kek.wrap(domain, KEY, BOUND)
    fail_with(client_of(kek), error)

    with pytest.raises(KeyUnavailable, match=type(error).__name__) as raised:
        await kek.unwrap(domain, wrapped, BOUND)
    assert isinstance(raised.value, KeyRefused) == is_refusal
