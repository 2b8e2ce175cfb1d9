from pathlib import Path

import pytest

from broker.errors import ConfigurationError
from broker.secret import Secret
from broker.settings.kms import KmsSettings, read_kms

CANARY = "canary-91d0"
TRANSIT = {"BROKER_KMS": "transit:https://bao.internal:8200/transit", "BROKER_KMS_TOKEN_FILE": "/run/token"}


def fault_of(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        read_kms(environ)
    (fault,) = raised.value.faults
    assert CANARY not in fault
    return fault


def test_without_it_keys_are_local() -> None:
    assert read_kms({}) is None
    assert read_kms({"BROKER_KMS": "", "BROKER_KMS_TOKEN": "", "BROKER_KEK": "x"}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "transit:https://bao.internal:8200/transit?prefix=east&namespace=team/a",
            KmsSettings("transit", "https://bao.internal:8200/v1/transit", "east", namespace="team/a"),
        ),
        (
            "transit:http://127.0.0.1:8100/mounts/transit/",
            KmsSettings("transit", "http://127.0.0.1:8100/v1/mounts/transit"),
        ),
        ("transit:https://bao:8200/v1/transit", KmsSettings("transit", "https://bao:8200/v1/transit")),
    ],
)
def test_transit_is_a_url_and_a_token(text: str, expected: KmsSettings) -> None:
    read = read_kms({**TRANSIT, "BROKER_KMS": text})

    assert read is not None
    assert (read.kind, read.place, read.prefix, read.namespace) == (
        expected.kind, expected.place, expected.prefix, expected.namespace,
    )  # fmt: skip
    assert (read.token, read.token_file, read.ca_file) == (None, Path("/run/token"), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("awskms:eu-central-1", KmsSettings("awskms", "eu-central-1")),
        (
            "awskms:us-gov-west-1?prefix=b&create=no&deletion_days=7&endpoint=https://vpce.example",
            KmsSettings(
                "awskms", "us-gov-west-1", "b", endpoint="https://vpce.example", may_create=False, deletion_days=7
            ),
        ),
        (
            "gcpkms:projects/p/locations/l/keyRings/r?create=no",
            KmsSettings("gcpkms", "projects/p/locations/l/keyRings/r", may_create=False),
        ),
        ("azurekv:https://name.vault.azure.net", KmsSettings("azurekv", "https://name.vault.azure.net")),
    ],
)
def test_a_cloud_is_where_its_keys_are(text: str, expected: KmsSettings) -> None:
    assert read_kms({"BROKER_KMS": text}) == expected


@pytest.mark.parametrize(
    "text",
    [
        CANARY, "vault:https://x/y", "transit:", "transit:https://host", "transit:https://user@host/transit",
        "transit:ftp://host/transit", "awskms:", "awskms:europe", "gcpkms:projects/p", "azurekv:http://n.vault.azure.net",
        "azurekv:https://vault.azure.net.example", "azurekv:https://n.vault.azure.net/keys",
    ],
)  # fmt: skip
def test_what_names_no_service_is_refused(text: str) -> None:
    assert fault_of(BROKER_KMS=text).startswith("BROKER_KMS names no key-management service. Fix: transit:https://")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "awskms:eu-central-1?colour=red",
            "colour is no option of awskms. Known: create, deletion_days, endpoint, prefix",
        ),
        ("gcpkms:projects/p/locations/l/keyRings/r?endpoint=https://x", "endpoint is no option of gcpkms"),
        ("awskms:eu-central-1?deletion_days=6", "deletion_days has to be 7 to 30"),
        ("awskms:eu-central-1?deletion_days=31", "deletion_days has to be 7 to 30"),
        ("awskms:eu-central-1?create=maybe", "create has to be yes or no"),
        ("awskms:eu-central-1?prefix=Broker", "prefix has to be up to 20 small letters"),
        ("awskms:eu-central-1?prefix=a&prefix=b", "prefix has to be up to 20 small letters, digits and -, once"),
        ("awskms:eu-central-1?endpoint=http://x", "endpoint has to be an https URL"),
        ("awskms:eu-central-1?prefix", "what follows ? is not NAME=VALUE"),
    ],
)
def test_an_option_that_is_none_is_refused(text: str, fault: str) -> None:
    assert fault in fault_of(BROKER_KMS=text)


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"BROKER_KMS_TOKEN": CANARY}, "BROKER_KMS_TOKEN is set and BROKER_KMS is not"),
        ({"BROKER_KMS": TRANSIT["BROKER_KMS"]}, "BROKER_KMS is Transit, which wants a token"),
        ({**TRANSIT, "BROKER_KMS_TOKEN": CANARY}, "BROKER_KMS is Transit, which wants a token"),
        ({**TRANSIT, "BROKER_KMS": "transit:http://bao.internal:8200/transit"}, "plain http is for an agent"),
        ({"BROKER_KMS": "awskms:eu-central-1", "BROKER_KMS_TOKEN": CANARY}, "BROKER_KMS_TOKEN is for Transit"),
        ({"BROKER_KMS": "awskms:eu-central-1", "BROKER_KMS_CA_FILE": "ca"}, "BROKER_KMS_CA_FILE is for Transit"),
    ],
)  # fmt: skip
def test_variables_that_do_not_fit_together_are_refused(environ: dict[str, str], fault: str) -> None:
    assert fault in fault_of(**environ)


def test_a_token_is_a_secret() -> None:
    read = read_kms({"BROKER_KMS": TRANSIT["BROKER_KMS"], "BROKER_KMS_TOKEN": CANARY})

    assert read is not None
    assert read.token == Secret(CANARY)
    assert CANARY not in repr(read)
