"""What a `[[registration]]` may say, and what stands against each other in it (spec §2)."""

from pathlib import Path

import pytest

from broker.settings import RegistrationSettings
from tests.settings.files import faults_of, load_text, spoiled

BACKEND = 'client_id = "broker-backend"\nsigning_algorithm = "RS384"'
LAUNCH = 'client_id = "broker"\nscopes = "launch openid fhirUser offline_access patient/*.rs"'
SECRET = 'client_secret = "env:CERNER_SECRET"'
TLS = 'authentication = "tls_client_auth"\ncertificate_key = "file:c.pem"\n'
PEM = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"


def launch(more: str) -> str:
    """The good file with more in the registration `epic-launch`."""
    return spoiled(LAUNCH, f"{LAUNCH}\n{more}")


def only(folder: Path, text: str) -> str:
    (fault,) = faults_of(folder, text)
    return fault


def first(folder: Path, text: str) -> RegistrationSettings:
    return load_text(folder, text).registration[0]


def test_a_registration_signs_unless_it_says_otherwise(tmp_path: Path) -> None:
    """RG-10, TK-05: a server can keep a key; a public client is asked for by name."""
    registration = first(tmp_path, spoiled("tenant", "tenant"))

    assert registration.authentication == "private_key_jwt"
    assert first(tmp_path, launch('authentication = "none"')).authentication == "none"


def test_a_backend_registration_takes_a_secret_only_by_name(tmp_path: Path) -> None:
    """RG-09, BS-01, OR-06."""
    wanted = f'client_id = "broker-backend"\nauthentication = "client_secret_basic"\n{SECRET}'

    assert "secret_for_backend = true" in only(tmp_path, spoiled(BACKEND, wanted))
    allowed = load_text(tmp_path, spoiled(BACKEND, f"{wanted}\nsecret_for_backend = true")).registration[1]
    assert allowed.authentication == "client_secret_basic"


def test_a_backend_registration_proves_itself(tmp_path: Path) -> None:
    """BS-01."""
    fault = only(tmp_path, spoiled(BACKEND, 'client_id = "broker-backend"\nauthentication = "none"'))

    assert "needs authentication = 'private_key_jwt'" in fault


def test_a_secret_in_the_body_is_asked_for_by_name(tmp_path: Path) -> None:
    """OA-05."""
    posted = launch(f'authentication = "client_secret_post"\n{SECRET}')

    assert first(tmp_path, posted).authentication == "client_secret_post"
    assert "client_secret is needed" in only(tmp_path, launch('authentication = "client_secret_post"'))


@pytest.mark.parametrize("method", ["tls_client_auth", "self_signed_tls_client_auth"])
def test_a_client_certificate_is_two_files_beside_the_settings(tmp_path: Path, method: str) -> None:
    """OA-19."""
    (tmp_path / "c.pem").write_text(PEM)
    (tmp_path / "k.pem").write_text(PEM)

    text = f'authentication = "{method}"\ncertificate = "file:c.pem"\ncertificate_key = "file:k.pem"'
    registration = first(tmp_path, launch(text))

    assert (registration.certificate, registration.certificate_key) == (tmp_path / "c.pem", tmp_path / "k.pem")


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ('authentication = "tls_client_auth"', "certificate and certificate_key are needed"),
        (
            'authentication = "tls_client_auth"\ncertificate = "file:c.pem"',
            "certificate and certificate_key are needed",
        ),
        ('certificate = "file:c.pem"\ncertificate_key = "file:c.pem"', "certificate and certificate_key are needed"),
        (TLS + 'certificate = "env:CERNER_SECRET"', "Fix: write file:PATH"),
        (TLS + 'certificate = "file:nowhere.pem"', "does not exist"),
        (TLS + 'certificate = "file:text.pem"', "is not PEM"),
        ('authentication = "none"\nsend_jku = true', "send_jku belongs to authentication = 'private_key_jwt'"),
        ('callback = "any"', "Input should be 'own' or 'shared'"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, more: str, fault: str) -> None:
    """OA-19, CA-03, CB-07."""
    (tmp_path / "c.pem").write_text(PEM)
    (tmp_path / "text.pem").write_text("no certificate")

    assert fault in only(tmp_path, launch(more))


def test_a_colon_in_a_client_id_is_refused_where_basic_is_sent_raw(tmp_path: Path) -> None:
    """TK-07 (Q1): the first colon ends the id, so the EHR would read another one."""
    text = spoiled(f'client_id = "broker"\nauthentication = "client_secret_basic"\n{SECRET}',
                   f'client_id = "urn:broker"\nauthentication = "client_secret_basic"\n{SECRET}')  # fmt: skip
    raw = text.replace('id = "cerner"\n', 'id = "cerner"\nbasic_encoding = "raw"\n', 1)

    assert load_text(tmp_path, text).registration[2].client_id == "urn:broker"
    assert "a client_id that holds a colon" in only(tmp_path, raw)


@pytest.mark.parametrize("environment", ["production", "non_production"])
def test_a_registration_is_not_used_in_the_other_environment(tmp_path: Path, environment: str) -> None:
    """EP-02: non-production client ids reach no production EHR, nor the other way round."""
    text = launch(f'environment = "{environment}"')
    if environment == "production":
        assert first(tmp_path, text).environment == environment
    else:
        assert "non_production registration at production EHR 'epic' (EP-02)" in only(tmp_path, text)


@pytest.mark.parametrize("origin", ["https://ehr.example", "https://ehr.example:8443", "https://a.b-c.example"])
def test_frames_are_allowed_by_origin(tmp_path: Path, origin: str) -> None:
    """CB-11."""
    assert first(tmp_path, launch(f'frame_ancestors = ["{origin}"]')).frame_ancestors == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "https://ehr.example/",
        "https://ehr.example/app",
        "https://*.example",
        "*",
        "'self'",
        "https:",
        "https://EHR.example",
        "https://ehr.example; script-src *",
        "https://ehr.example https://evil.example",
        "https://user@ehr.example",
        "http://ehr.example",
    ],
)
def test_what_is_no_https_origin_frames_nothing(tmp_path: Path, origin: str) -> None:
    """CB-11: no wildcard, no path, and nothing that would end the directive."""
    assert "registration[1].frame_ancestors" in only(tmp_path, launch(f'frame_ancestors = ["{origin}"]'))


def test_a_backend_registration_has_no_frame(tmp_path: Path) -> None:
    """CB-11."""
    fault = only(tmp_path, spoiled(BACKEND, f'{BACKEND}\nframe_ancestors = ["https://ehr.example"]'))

    assert "frame_ancestors belongs to flow = 'launch'" in fault


@pytest.mark.parametrize("name", ["token_endpoint", "authorization_endpoint"])
def test_an_endpoint_that_the_operator_names_is_https(tmp_path: Path, name: str) -> None:
    """TK-08, OR-02."""
    fault = only(tmp_path, spoiled('name = "Epic"', f'{name} = "http://auth.example/x"'))

    assert f"ehr[1].{name}" in fault
    assert "is plain http" in fault


def test_a_dynamic_client_is_asked_for_by_name(tmp_path: Path) -> None:
    """(EP-17)"""
    assert not first(tmp_path, spoiled("tenant", "tenant")).dynamic_client
    for authentication in ("private_key_jwt", "none"):
        said = launch(f'authentication = "{authentication}"\ndynamic_client = true')
        assert first(tmp_path, said).dynamic_client


@pytest.mark.parametrize(
    "text",
    [
        launch(f'authentication = "client_secret_basic"\n{SECRET}\ndynamic_client = true'),
        spoiled(BACKEND, f"{BACKEND}\ndynamic_client = true"),
    ],
)
def test_a_dynamic_client_is_for_launches_without_a_secret(tmp_path: Path, text: str) -> None:
    """(EP-17)"""
    assert "dynamic_client belongs to flow = 'launch' with authentication = 'private_key_jwt' or 'none'" in only(
        tmp_path, text
    )


def test_a_dynamic_client_and_dpop_exclude_each_other(tmp_path: Path) -> None:
    """(EP-17, OA-23)"""
    assert "dynamic_client and dpop exclude each other" in only(tmp_path, launch("dynamic_client = true\ndpop = true"))


def test_the_scope_of_a_dynamic_client_is_not_the_operators_to_write(tmp_path: Path) -> None:
    """It is asked for by the key alone, and is in no app's reach (EP-17)."""
    wanted = LAUNCH.replace("patient/*.rs", "patient/*.rs system/DynamicClient.register")
    assert "malformed scope" in only(tmp_path, spoiled(LAUNCH, wanted))
