"""Against moto, behind a client that refuses what moto lets pass."""

from collections.abc import AsyncIterator, Iterator

import pytest

from broker.clock import system_clock
from broker.errors import KeyRefused, KeyUnavailable
from broker.kms.aws import AwsKeys
from broker.kms.aws_server import AwsServer
from broker.vault import Domain, KeyEncryptionKeys
from tests.kms.aws import REGION, FaultyKms, playing_aws
from tests.kms.contract import BOUND, KEY, Contract, new_domain

DAY = 86_400


@pytest.fixture
def aws() -> Iterator[FaultyKms]:
    with playing_aws() as aws:
        yield aws


@pytest.fixture
async def kek(aws: FaultyKms) -> AsyncIterator[AwsKeys]:
    keys = AwsKeys(AwsServer(REGION, make=lambda: aws), "broker", system_clock)
    yield keys
    await keys.close()


class TestAws(Contract):
    def fail(self, kek: KeyEncryptionKeys) -> None:
        client_of(kek).is_down = True

    def refuse(self, kek: KeyEncryptionKeys, domain: Domain) -> None:
        client = client_of(kek)
        client.client.disable_key(
            KeyId=client.client.describe_key(KeyId=f"alias/broker/default/{domain.ehr}")["KeyMetadata"]["KeyId"]
        )


def client_of(kek: KeyEncryptionKeys) -> FaultyKms:
    assert isinstance(kek, AwsKeys)
    assert isinstance(kek.server._made, FaultyKms)
    return kek.server._made


async def test_each_domain_has_a_key_of_its_own_behind_an_alias(aws: FaultyKms, kek: AwsKeys) -> None:
    await kek.wrap(Domain("clinic.east", "epic.main"), KEY, BOUND)
    await kek.wrap(Domain("clinic.east"), KEY, BOUND)

    names = {one["AliasName"] for one in aws.client.list_aliases()["Aliases"] if "TargetKeyId" in one}
    assert {"alias/broker/clinicDeast/epicDmain", "alias/broker/clinicDeast"} <= names


async def test_a_rotated_key_is_the_same_key_with_another_version(kek: AwsKeys) -> None:
    domain = new_domain()
    first, second = await kek.current(domain), await kek.rotate(domain)

    assert first.rpartition(":")[0] == second.rpartition(":")[0]
    assert (first.rpartition(":")[2], second.rpartition(":")[2]) == ("1", "2")


async def test_a_destroyed_key_is_disabled_at_once_and_deleted_later(aws: FaultyKms, kek: AwsKeys) -> None:
    domain = new_domain()
    key_id = (await kek.current(domain)).split(":")[1]
    (destroyed,) = await kek.destroy(domain)

    assert destroyed.kek == f"awskms:{key_id}"
    assert destroyed.gone_at == pytest.approx(system_clock() + 30 * DAY, abs=60)
    assert aws.client.describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"] == "PendingDeletion"


async def test_where_the_broker_may_not_make_keys_a_new_ehr_is_refused(aws: FaultyKms) -> None:
    kek = AwsKeys(AwsServer(REGION, make=lambda: aws), "broker", system_clock, may_create=False)

    with pytest.raises(KeyRefused, match=r"AWS KMS has no key alias/broker/default/epic, and create=no. Fix: make one"):
        await kek.wrap(Domain("default", "epic"), KEY, BOUND)
    assert "create_key" not in aws.calls


async def test_two_replicas_at_once_end_with_one_key(
    aws: FaultyKms, kek: AwsKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one's key is not left behind."""
    domain = new_domain()
    name = f"alias/broker/default/{domain.ehr}"
    faster = aws.client.create_key()["KeyMetadata"]["KeyId"]
    make = AwsServer.ask

    async def between(server: AwsServer, operation: str, **arguments: object) -> object:
        if operation == "create_alias":
            aws.client.create_alias(AliasName=name, TargetKeyId=faster)
        return await make(server, operation, **arguments)

    monkeypatch.setattr(AwsServer, "ask", between)

    assert await kek.current(domain) == f"awskms:{faster}:1"
    states = [aws.client.describe_key(KeyId=key["KeyId"])["KeyMetadata"] for key in aws.client.list_keys()["Keys"]]
    assert sorted(one["KeyState"] for one in states) == ["Enabled", "PendingDeletion"]


@pytest.mark.parametrize(
    ("code", "is_refusal"),
    [
        ("AccessDeniedException", True),
        ("IncorrectKeyException", True),
        ("ExpiredTokenException", False),
        ("UnrecognizedClientException", False),
        ("ThrottlingException", False),
        ("KMSInternalException", False),
        ("DependencyTimeoutException", False),
    ],
)
async def test_what_each_error_means(aws: FaultyKms, kek: AwsKeys, code: str, is_refusal: bool) -> None:  # noqa: FBT001  # a column of the table
    domain = new_domain()
    wrapped = await kek.wrap(domain, KEY, BOUND)
    aws.error = code

    with pytest.raises(KeyUnavailable, match=code) as raised:
        await kek.unwrap(domain, wrapped, BOUND)
    assert isinstance(raised.value, KeyRefused) == is_refusal


async def test_the_clients_own_settings_are_bounded(aws: FaultyKms) -> None:
    server = AwsServer(REGION)
    await server.ask("describe_key", KeyId=aws.client.create_key()["KeyMetadata"]["KeyId"])
    config = server._made.meta.config
    await server.close()

    assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (2.0, 3.0, 3)
    assert server._made.meta.region_name == REGION
