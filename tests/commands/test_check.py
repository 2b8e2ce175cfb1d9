"""`broker check`: everything that would stop a start, in one go."""

import asyncio
import re
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.cli.check import CERTIFICATE_SECONDS, certificate_finding
from broker.store.embedded import EmbeddedServer
from tests.commands.program import Operator
from tests.stage import BrokerStage
from tests.stage.broker import days_ahead

FAULTY = """public_url = "http://broker.example.org"

[[ehr]]
id = "general"
fhir_base = "https://fhir.example.org/r4"
unknown_key = 1

[[registration]]
id = "general-launch"
ehr = "genral"
flow = "launch"
client_id = "broker"
authentication = "client_secret_basic"
client_secret = "literally-the-secret"
scopes = "patient/*.rs"
"""
CROSSED = """public_url = "http://broker.example.org"

[[ehr]]
id = "general"
fhir_base = "https://fhir.example.org/r4"

[[registration]]
id = "general-launch"
ehr = "genral"
flow = "launch"
client_id = "broker"
scopes = "patient/Patient.rs"

[[app]]
id = "chart"
authentication = "none"
redirect_uris = ["http://chart.example.org/callback"]

[[app.access]]
registration = "general-launch"
scopes = "patient/*.cruds"
"""


async def test_a_sound_deployment_passes_part_by_part(at_stage: Operator, stage: BrokerStage) -> None:
    said = await at_stage.run("check", "--json")

    assert (said.status, said.err) == (0, "")
    found = {(finding["part"], finding["level"]) for finding in said.json()}
    assert {("broker.toml", "ok"), ("key", "ok"), ("store", "ok"), ("ehr", "ok")} <= found
    assert "fault" not in {level for _, level in found}
    assert any("1 EHRs, 2 registrations, 2 apps" in finding["text"] for finding in said.json())


async def test_the_same_is_said_to_people(at_stage: Operator) -> None:
    said = await at_stage.run("check")

    assert (said.status, said.err) == (0, "")
    assert re.search(r"^ok +store +Valkey \d", said.out, re.MULTILINE)
    assert re.search(r"^ok +ehr +sandbox: token endpoint found by smart-configuration$", said.out, re.MULTILINE)
    assert re.search(r"^warning +broker\.toml +allow_loopback_http", said.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            FAULTY,
            {
                "6: ehr[1].unknown_key: unknown key 'unknown_key'",
                "14: registration[1].client_secret: a secret never stands in the file itself",
            },
        ),
        (
            CROSSED,
            {
                "1: public_url: http://broker.example.org is plain http",
                "9: registration[1].ehr: there is no EHR 'genral'; defined: general",
                "17: app[1].redirect_uris: http://chart.example.org/callback is plain http",
                "21: app[1].access[1].scopes: patient/*.cruds is more than registration 'general-launch'",
            },
        ),
        ("public_url = [", {" not TOML: "}),
        ("", {"1: public_url: is missing", "1: ehr: is missing", "1: registration: is missing"}),
    ],
    ids=["keys", "references", "syntax", "empty"],
)
async def test_every_fault_is_found_in_one_go_with_its_line(operator: Operator, text: str, faults: set[str]) -> None:
    (operator.home / "broker.toml").write_text(text)

    said = await operator.but(BROKER_KEK_FILE=None).run("check", "--offline", "--json")

    assert said.status == 78
    found = [finding["text"] for finding in said.json() if finding["part"] == "broker.toml"]
    assert {finding["level"] for finding in said.json()} == {"fault"}
    assert len(found) == len(faults), found
    for fault in faults:
        assert any(one.removeprefix(f"{operator.home}/broker.toml:").startswith(fault) for one in found), (fault, found)
    assert [finding["part"] for finding in said.json()][-1] == "key"
    assert "literally-the-secret" not in said.out


async def test_offline_asks_neither_store_nor_ehr(at_stage: Operator, stage: BrokerStage, tmp_path: Path) -> None:
    before = len(stage.sandbox.journal())
    (tmp_path / "nowhere").write_text("redis://127.0.0.1:1/0")

    said = await at_stage.but(BROKER_REDIS_URL_FILE=str(tmp_path / "nowhere")).run("check", "--offline", "--json")

    assert said.status == 0
    assert {finding["part"] for finding in said.json()} == {"broker.toml", "key"}
    assert len(stage.sandbox.journal()) == before


async def test_a_store_and_an_ehr_that_do_not_answer_are_faults(
    at_stage: Operator, stage: BrokerStage, tmp_path: Path
) -> None:
    (tmp_path / "nowhere").write_text("redis://:canary-password@127.0.0.1:1/0")
    stage.sandbox.fault("discovery_500")

    said = await at_stage.but(BROKER_REDIS_URL_FILE=str(tmp_path / "nowhere")).run("check", "--json")

    assert said.status == 78
    faults = {finding["part"]: finding["text"] for finding in said.json() if finding["level"] == "fault"}
    assert faults["store"].startswith("store_unavailable: ")
    assert faults["ehr"].startswith("sandbox: ehr_unreachable: ")
    assert "canary-password" not in said.out + said.err


async def test_an_environment_that_cannot_be_read_is_told_line_by_line(
    operator: Operator, valkey: EmbeddedServer
) -> None:
    said = await operator.but(BROKER_PORT="70000", BROKER_TYPO="1", BROKER_REDIS_URL=valkey.url().reveal()).run("check")

    assert said.status == 78
    lines = said.out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("fault    environment  BROKER_") for line in lines)
    assert valkey.url().reveal() not in said.out


async def test_secrets_that_end_and_apps_that_cannot_authenticate_are_found(
    at_stage: Operator, stage: BrokerStage
) -> None:
    config = at_stage.home / "broker.toml"
    table = '\n[[app]]\nid = "etl"\nauthentication = "tls_client_auth"\ntls_client_auth_san_dns = "etl.example"\n'
    config.write_text(config.read_text().replace(f"expires = {days_ahead(399)}", f"expires = {days_ahead(3)}") + table)

    said = await at_stage.run("check", "--offline", "--json")
    declared = at_stage.but(BROKER_CLIENT_CERTIFICATE_HEADER="Client-Cert", BROKER_FORWARDED_ALLOW_IPS="10.0.0.1")

    assert said.status == 78
    texts = {finding["level"]: finding["text"] for finding in said.json() if finding["part"] == "broker.toml"}
    assert texts["fault"].startswith("app etl authenticates by tls_client_auth, and no proxy is declared")
    assert re.fullmatch(r"app reports: secret \w{8} expires in [23] days. Fix: broker apps secret", texts["warning"])
    assert (await declared.run("check", "--offline")).status == 0


@pytest.mark.parametrize(
    ("left", "level", "said"),
    [
        (CERTIFICATE_SECONDS + 1, "ok", "it ends on 2026-10-31"),
        (CERTIFICATE_SECONDS, "warning", "it ends on 2026-10-31. Fix: "),
        (1, "warning", "it ends on 2026-10-01. Fix: "),
        (0, "warning", "it ended on 2026-10-01. Fix: "),
    ],
)
def test_a_certificate_is_warned_of_from_thirty_days_before_its_end(left: int, level: str, said: str) -> None:
    """(OR-05)"""
    now = datetime(2026, 10, 1, 12, tzinfo=UTC).timestamp()

    found = certificate_finding("public_url", now + left, now)

    assert (found.part, found.level) == ("certificate", level)
    assert found.text.startswith(f"public_url: {said}")


def self_signed(folder: Path, days: int) -> Path:
    """Write a certificate for 127.0.0.1 that has so many days left, and its key, into one file."""
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=days, hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), True)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / f"{days}.pem"
    file.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return file


def last_day(file: Path) -> str:
    return f"{x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc:%Y-%m-%d}"


async def certificates(operator: Operator, *options: str) -> list[tuple[str, str]]:
    said = await operator.run("check", "--json", *options)
    return [(one["level"], one["text"].partition(". Fix")[0]) for one in said.json() if one["part"] == "certificate"]


@pytest.mark.parametrize(("days", "level"), [(29, "warning"), (300, "ok")])
async def test_the_certificate_of_the_public_url_is_looked_at(at_stage: Operator, days: int, level: str) -> None:
    """(OR-05)"""
    file = self_signed(at_stage.home, days)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(file)

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=tls) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        config = at_stage.home / "broker.toml"
        config.write_text(re.sub(r'public_url = ".*"', f'public_url = "{url}"', config.read_text()))
        trusting, seen = at_stage.but(SSL_CERT_FILE=str(file)), f"public_url: it ends on {last_day(file)}"

        assert await certificates(trusting) == [(level, seen)]
        assert await certificates(at_stage, "--offline") == []
        unknown = "the certificate does not verify, or no TLS version is shared (TK-08)"
        assert await certificates(at_stage) == [("warning", f"public_url: it cannot be seen from here: {unknown}")]


async def test_the_certificates_of_registrations_are_looked_at_without_connecting(at_stage: Operator) -> None:
    """(OR-05, OA-19): of a chain, the first to end counts."""
    long, short = self_signed(at_stage.home, 300), self_signed(at_stage.home, 20)
    (at_stage.home / "chain.pem").write_bytes(long.read_bytes() + short.read_bytes())
    (at_stage.home / "empty.pem").write_text("-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n")
    config = at_stage.home / "broker.toml"
    table = """
[[registration]]
id = "{0}"
ehr = "sandbox"
flow = "backend"
client_id = "broker"
authentication = "tls_client_auth"
certificate = "file:{0}.pem"
certificate_key = "file:{0}.pem"
scopes = "system/*.rs"
"""
    config.write_text(config.read_text() + "".join(map(table.format, ("chain", "empty", "300"))))

    assert await certificates(at_stage, "--offline") == [
        ("warning", f"registration chain: it ends on {last_day(short)}"),
        ("fault", "registration empty: it cannot be read (ValueError)"),
        ("ok", f"registration 300: it ends on {last_day(long)}"),
    ]
