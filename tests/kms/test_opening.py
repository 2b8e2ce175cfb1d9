import base64
from pathlib import Path

import pytest

from broker.errors import ConfigurationError, KeyUnavailable
from broker.kms.aws import AwsKeys
from broker.kms.aws_signing import AwsSigning
from broker.kms.azure import AzureKeys
from broker.kms.google import GoogleKeys
from broker.kms.opening import open_kek, open_signing, without_signing
from broker.kms.signing import NoSigning
from broker.kms.transit import TransitKeys
from broker.kms.transit_signing import TransitSigning
from broker.vault import Domain, LocalKeyring
from tests.keys.test_signing import registration
from tests.kms.openbao import OpenBao, running_openbao

TRANSIT = {"BROKER_KMS": "transit:https://bao.internal:8200/transit", "BROKER_KMS_TOKEN": "t"}


@pytest.mark.parametrize(
    ("environ", "keys", "signs"),
    [
        ({"BROKER_KEK": base64.b64encode(bytes(range(32))).decode()}, LocalKeyring, NoSigning),
        (TRANSIT, TransitKeys, TransitSigning),
        ({"BROKER_KMS": "awskms:eu-central-1"}, AwsKeys, AwsSigning),
        ({"BROKER_KMS": "gcpkms:projects/p/locations/l/keyRings/r"}, GoogleKeys, NoSigning),
        ({"BROKER_KMS": "azurekv:https://n.vault.azure.net"}, AzureKeys, NoSigning),
    ],
)
async def test_what_the_environment_names_is_opened_and_not_asked(
    environ: dict[str, str], keys: type, signs: type
) -> None:
    kek, signing = open_kek(environ), open_signing(environ)
    await kek.close()
    await signing.close()

    assert type(kek) is keys
    assert type(signing) is signs


async def test_with_a_documented_url_keys_are_wrapped(openbao: OpenBao, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(openbao.token)
    environ = {"BROKER_KMS": f"transit:{openbao.address}/transit?prefix=broker", "BROKER_KMS_TOKEN_FILE": str(token)}
    kek = open_kek(environ)
    wrapped = await kek.wrap(Domain("opened", "epic"), bytes(32), b"for this")
    await kek.close()

    assert wrapped.kek == "transit:broker.opened.epic:1"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ConfigurationError, match=r"BROKER_KMS_CA_FILE=.* cannot be read"):
        open_kek({**TRANSIT, "BROKER_KMS_CA_FILE": str(file)})


async def test_certificates_of_ones_own_are_trusted_where_they_are_named(tmp_path: Path) -> None:
    with running_openbao(tmp_path, tls=True) as bao:
        environ = {"BROKER_KMS": f"transit:{bao.address}/transit", "BROKER_KMS_TOKEN": bao.token}
        trusting, others = open_kek({**environ, "BROKER_KMS_CA_FILE": str(bao.ca_file)}), open_kek(environ)
        await trusting.check()
        with pytest.raises(KeyUnavailable, match="does not answer: no connection"):
            await others.check()
        await trusting.close()
        await others.close()


def test_a_registration_that_nothing_signs_for_is_a_fault() -> None:
    """(RG-07)."""
    there, here = (registration(signing=signing) for signing in ("kms", "broker"))

    (fault,) = without_signing([there, here], NoSigning())
    assert fault.startswith('registration epic: signing = "kms", and no key-management service is configured')
    assert list(without_signing([there, here], open_signing(TRANSIT))) == []


@pytest.mark.parametrize("call", ["create", "public_key", "sign", "destroy"])
async def test_where_nothing_signs_every_call_says_so(call: str) -> None:
    arguments = ["reference", b""] if call in {"create", "sign"} else ["reference"]
    with pytest.raises(KeyUnavailable, match="Fix: BROKER_KMS"):
        await getattr(NoSigning(), call)(*arguments)
