"""Keys that sign without leaving the KMS: what they sign verifies as JOSE says."""

from collections.abc import AsyncIterator

import pytest
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry, deserialize_compact
from joserfc.util import urlsafe_b64encode

from broker.clock import system_entropy
from broker.errors import KeyRefused, KeyUnavailable
from broker.kms.aws_server import AwsServer
from broker.kms.aws_signing import AwsSigning
from broker.kms.signing import Algorithm, RemoteSigning
from broker.kms.transit_signing import TransitSigning
from tests.kms.aws import REGION, playing_aws
from tests.kms.openbao import OpenBao


@pytest.fixture(params=["transit", "awskms"])
async def signing(request: pytest.FixtureRequest, openbao: OpenBao) -> AsyncIterator[RemoteSigning]:
    if request.param == "transit":
        server = openbao.server()
        yield TransitSigning(server, "broker", system_entropy)
        await server.close()
        return
    with playing_aws() as aws:
        yield AwsSigning(AwsServer(REGION, make=lambda: aws), "broker")


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_a_signature_verifies_as_a_jws(signing: RemoteSigning, algorithm: Algorithm) -> None:
    reference = await signing.create("epic.main", algorithm)
    pem = await signing.public_key(reference)
    key = ECKey.import_key(pem) if algorithm == "ES384" else RSAKey.import_key(pem)
    message = urlsafe_b64encode(f'{{"alg":"{algorithm}"}}'.encode()) + b"." + urlsafe_b64encode(b"payload")

    signature = await signing.sign(reference, message)

    token = (message + b"." + urlsafe_b64encode(signature)).decode()
    assert deserialize_compact(token, key, registry=JWSRegistry(algorithms=[algorithm])).payload == b"payload"
    assert len(signature) == (96 if algorithm == "ES384" else 384)
    assert b"PRIVATE" not in pem


async def test_every_key_is_another_one(signing: RemoteSigning) -> None:
    first, second = await signing.create("one", "ES384"), await signing.create("one", "ES384")

    assert first != second
    assert await signing.public_key(first) != await signing.public_key(second)


async def test_a_destroyed_key_does_not_sign(signing: RemoteSigning) -> None:
    reference = await signing.create("gone", "ES384")
    await signing.destroy(reference)
    await signing.destroy(reference)

    with pytest.raises(KeyRefused):
        await signing.sign(reference, b"message")


async def test_a_key_of_another_kms_cannot_be_had(signing: RemoteSigning) -> None:
    with pytest.raises(KeyUnavailable):
        await signing.sign("elsewhere:key", b"message")
