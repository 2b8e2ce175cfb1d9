import base64
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest

from broker.errors import ConfigurationError
from broker.secret import Secret
from broker.settings import Deployment
from broker.settings.deployment import VARIABLES, CertificateHeader, key_encryption_keys
from broker.vault.keyring import kek_name

CANARY = "canary-77c2"
KEY = bytes(range(32))
KEY_TEXT = base64.b64encode(KEY).decode()


def faults_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as raised:
        Deployment.read(environ)
    return raised.value.faults


def test_an_empty_environment_gives_a_local_run() -> None:
    assert Deployment.read({}) == Deployment(
        config=Path("broker.toml"),
        state=Path(".broker"),
        host="127.0.0.1",
        port=8080,
        redis_url=None,
        durability="primary",
        audit_file=Path(".broker/audit.jsonl"),
        proxies=(),
        certificate_header=None,
        drain_seconds=30,
    )


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    environ = {
        "BROKER_CONFIG": "/etc/broker.toml",
        "BROKER_STATE": str(tmp_path),
        "BROKER_HOST": "::",
        "BROKER_PORT": "0",
        "BROKER_REDIS_URL": f"rediss://:{CANARY}@redis.example",
        "BROKER_REDIS_DURABILITY": "replica",
        "BROKER_AUDIT_FILE": "-",
        "BROKER_FORWARDED_ALLOW_IPS": "10.0.0.1, fd00::/8",
        "BROKER_CLIENT_CERTIFICATE_HEADER": "Client-Cert",
        "BROKER_DRAIN_SECONDS": "5",
    }

    assert Deployment.read(environ) == Deployment(
        config=Path("/etc/broker.toml"),
        state=tmp_path,
        host="::",
        port=0,
        redis_url=Secret(f"rediss://:{CANARY}@redis.example"),
        durability="replica",
        audit_file=None,
        proxies=(ip_network("10.0.0.1"), ip_network("fd00::/8")),
        certificate_header=CertificateHeader("Client-Cert", (ip_network("10.0.0.1"), ip_network("fd00::/8"))),
        drain_seconds=5,
    )


def test_a_durability_that_nobody_knows_is_refused() -> None:
    (fault,) = faults_of({"BROKER_REDIS_DURABILITY": "none"})

    assert fault == "BROKER_REDIS_DURABILITY='none' is none of primary, replica, disk"


def test_empty_variables_count_as_absent() -> None:
    assert Deployment.read(dict.fromkeys(VARIABLES, "")) == Deployment.read({})


def test_the_audit_file_is_in_the_state_directory_unless_named() -> None:
    assert Deployment.read({"BROKER_STATE": "/s"}).audit_file == Path("/s/audit.jsonl")
    assert Deployment.read({"BROKER_STATE": "/s", "BROKER_AUDIT_FILE": "/a"}).audit_file == Path("/a")


@pytest.mark.parametrize("name", ["BROKER_COLOUR", "BROKER_", "BROKER_KEK_", "BROKER_PORTS", "BROKER_SERVICE"])
def test_an_unknown_variable_is_refused(name: str) -> None:
    assert faults_of({name: CANARY}) == (f"{name} is not a setting. Known: {', '.join(VARIABLES)}",)


def test_variables_of_others_are_not_looked_at() -> None:
    assert Deployment.read({"PATH": "/bin", "broker_port": "x", "XBROKER_A": "1"}) == Deployment.read({})


def test_what_kubernetes_sets_for_a_service_named_broker_is_tolerated() -> None:
    of_kubernetes = {
        "BROKER_SERVICE_HOST": "10.96.0.7",
        "BROKER_SERVICE_PORT": "8080",
        "BROKER_SERVICE_PORT_HTTP": "8080",
        "BROKER_PORT": "tcp://10.96.0.7:8080",
        "BROKER_PORT_8080_TCP": "tcp://10.96.0.7:8080",
        "BROKER_PORT_8080_TCP_ADDR": "10.96.0.7",
    }

    assert Deployment.read(of_kubernetes) == Deployment.read({})


@pytest.mark.parametrize("text", ["x", "-1", "65536", "8080 ", "+80", "80.0", "0x50", "８０", "9" * 5000])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    assert faults_of({"BROKER_PORT": text}) == (f"BROKER_PORT={text!r} is not a number from 0 to 65535",)


@pytest.mark.parametrize(
    "proxies",
    [
        "*",
        "0.0.0.0/0",
        "10.0.0.1, ::/0",
        "::ffff:0:0/96",
        "0.0.0.0/1,128.0.0.0/1",
        "10.0.0.1/8",
        "10.0.0.5 10.0.0.6",
        "10.0.0.5,",
        "10.0.0.5:443",
        "10.0.0.0/8;x",
        "fe80::1%eth0",
        "localhost",
    ],
)
@pytest.mark.parametrize("header", ["", "Client-Cert"])
def test_callers_and_certificates_are_believed_from_named_addresses_alone(proxies: str, header: str) -> None:
    """OA-25: not from everybody, and not from whom a slip of the pen names."""
    environ = {"BROKER_CLIENT_CERTIFICATE_HEADER": header, "BROKER_FORWARDED_ALLOW_IPS": proxies}

    (fault,) = faults_of(environ)
    assert fault == (
        f"BROKER_FORWARDED_ALLOW_IPS={proxies!r} must be addresses or networks of proxies with commas, such as "
        "10.0.0.5, fd00::/64: without host bits, and not everybody's"
    )


def test_certificates_need_a_proxy_that_is_named() -> None:
    """OA-25."""
    assert faults_of({"BROKER_CLIENT_CERTIFICATE_HEADER": "Client-Cert"}) == (
        "BROKER_CLIENT_CERTIFICATE_HEADER needs BROKER_FORWARDED_ALLOW_IPS: the addresses of the proxies that send it",
    )


@pytest.mark.parametrize("name", ["Client Cert", "Client-Cert:", "a" * 65, "x_y"])
def test_a_certificate_header_has_the_name_of_a_header(name: str) -> None:
    environ = {"BROKER_CLIENT_CERTIFICATE_HEADER": name, "BROKER_FORWARDED_ALLOW_IPS": "10.0.0.1"}

    assert faults_of(environ) == (f"BROKER_CLIENT_CERTIFICATE_HEADER={name!r} is not the name of a header",)


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")

    assert faults_of(
        {"BROKER_PORT": "x", "BROKER_DRAIN_SECONDS": "y", "BROKER_A": "1", "BROKER_REDIS_URL_FILE": str(empty)}
    ) == (
        f"BROKER_A is not a setting. Known: {', '.join(VARIABLES)}",
        "BROKER_PORT='x' is not a number from 0 to 65535",
        "BROKER_DRAIN_SECONDS='y' is not a number from 0 to 3600",
        f"BROKER_REDIS_URL_FILE={empty} is empty",
    )


def test_the_redis_url_can_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text(f"redis://:{CANARY}@h\n")

    assert Deployment.read({"BROKER_REDIS_URL_FILE": str(path)}).redis_url == Secret(f"redis://:{CANARY}@h")


def test_two_redis_urls_are_refused_without_quoting_them(tmp_path: Path) -> None:
    faults = faults_of({"BROKER_REDIS_URL": f"redis://:{CANARY}@h", "BROKER_REDIS_URL_FILE": str(tmp_path)})

    assert faults == ("BROKER_REDIS_URL and BROKER_REDIS_URL_FILE are both set; keep one",)


def test_a_redis_url_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    faults = faults_of({"BROKER_REDIS_URL_FILE": str(tmp_path / "no")})

    assert faults == (f"BROKER_REDIS_URL_FILE={tmp_path}/no cannot be read (FileNotFoundError)",)


def test_a_deployment_does_not_show_the_redis_url() -> None:
    assert CANARY not in repr(Deployment.read({"BROKER_REDIS_URL": f"redis://:{CANARY}@h"}))


def test_the_keyring_comes_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_text(KEY_TEXT)
    path.chmod(0o600)

    assert key_encryption_keys({"BROKER_KEK": KEY_TEXT}).keks == (kek_name(KEY),)
    assert key_encryption_keys({"BROKER_KEK_FILE": str(path)}).keks == (kek_name(KEY),)


def credential(tmp_path: Path, *, mode: int) -> dict[str, str]:
    (tmp_path / "broker-kek").write_text(KEY_TEXT)
    (tmp_path / "broker-kek").chmod(mode)
    return {"CREDENTIALS_DIRECTORY": str(tmp_path)}


@pytest.mark.parametrize("mode", [0o400, 0o440])
def test_the_keyring_can_be_a_systemd_credential(tmp_path: Path, mode: int) -> None:
    """0440 is what an access list for the service's user makes of it."""
    assert key_encryption_keys(credential(tmp_path, mode=mode)).keks == (kek_name(KEY),)


def test_a_variable_wins_over_the_credential(tmp_path: Path) -> None:
    other = base64.b64encode(bytes(range(1, 33))).decode()

    environ = credential(tmp_path, mode=0o400) | {"BROKER_KEK": other}
    assert key_encryption_keys(environ).keks == (kek_name(bytes(range(1, 33))),)


@pytest.mark.parametrize("mode", [0o404, 0o420, 0o410])
def test_a_credential_that_others_could_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match="others could read it"):
        key_encryption_keys(credential(tmp_path, mode=mode))


def test_a_service_without_that_credential_has_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither is set"):
        key_encryption_keys({"CREDENTIALS_DIRECTORY": str(tmp_path)})


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "neither is set"),
        ({"BROKER_KEK": "", "BROKER_KEK_FILE": ""}, "neither is set"),
        ({"BROKER_KEK": CANARY, "BROKER_KEK_FILE": "kek"}, "both are set; keep one"),
        ({"BROKER_KEK": CANARY}, "BROKER_KEK: a key-encryption key is 32 random bytes in base64"),
        ({"BROKER_KEK": "# canary only\n"}, "the key-encryption key is empty. Fix: openssl rand -base64 32"),
    ],
)
def test_nothing_starts_without_exactly_one_keyring(environ: Mapping[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        key_encryption_keys(environ)

    assert says in str(raised.value)
    assert CANARY not in str(raised.value)
