"""`broker probe`: what an operator learns of a server before writing an `[[ehr]]` block."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.clock import system_clock
from broker.egress import Egress
from broker.ehr.probe import Probe
from broker.ehr.probe_report import ehr_block, report
from broker.profiles import profile
from broker.settings import load
from tests.stage import Sandbox
from tests.stage.sandbox import running_sandbox

KNOWN = {"inferno": "generic"}
"""A personality without a profile of its own."""
PERSONALITIES = ("generic", "epic", "oracle", "athena", "smart-launcher", "inferno")


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    egress = Egress(allow_loopback_http=True)
    yield Probe(egress, system_clock)
    await egress.close()


async def seen(probe: Probe, sandbox: Sandbox, name: str = "generic") -> dict[str, Any]:
    return report(await probe(sandbox.fhir_base), name, profile(name), system_clock())


@pytest.mark.parametrize("name", PERSONALITIES)
async def test_every_vendor_the_sandbox_plays_is_found_usable(probe: Probe, sandbox: Sandbox, name: str) -> None:
    """(DS-01, DS-16)"""
    sandbox.play(name)
    found = await seen(probe, sandbox, KNOWN.get(name, name))

    assert found["usable"]
    assert found["endpoints"]["token_endpoint"].startswith(sandbox.origin)
    assert found["fhir_version"] == "4.0.1"
    assert found["resource_types"] > 5
    assert abs(found["clock_offset_seconds"]) <= 2


async def test_capability_sets_are_told(probe: Probe, sandbox: Sandbox) -> None:
    """(DS-17)"""
    assert "Patient-Standalone" in (await seen(probe, sandbox))["capability_sets"]


@pytest.mark.parametrize("name", PERSONALITIES)
async def test_the_block_it_prints_loads(probe: Probe, sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    sandbox.play(name)
    known = KNOWN.get(name, name)
    block = ehr_block(await probe(sandbox.fhir_base), known, profile(known))
    registration = (
        '[[registration]]\nid = "r"\nehr = "127-0-0-1"\nflow = "launch"\nclient_id = "c"\nscopes = "patient/*.rs"\n'
    )
    head = 'public_url = "https://broker.example"\nallow_loopback_http = true\n'
    (tmp_path / "broker.toml").write_text(head + block + registration)

    (ehr,) = load(tmp_path / "broker.toml", {}).ehr
    assert ehr.fhir_base == sandbox.fhir_base


@pytest.mark.parametrize(
    ("fault", "warning"),
    [
        ({"name": "discovery_members", "drop": ["capabilities"]}, "capabilities is missing (DS-03)"),
        (
            {"name": "discovery_members", "set": {"token_endpoint": "https://elsewhere.example/token"}},
            "token_endpoint is on another host, elsewhere.example",
        ),
        ({"name": "jwks_down"}, "no key was found to verify id_tokens with (ID-02)"),
        ({"name": "discovery_html"}, "status 200, and no JSON object (DS-14)"),
    ],
)
async def test_what_is_odd_becomes_a_warning_with_its_rule(
    probe: Probe, sandbox: Sandbox, fault: dict[str, Any], warning: str
) -> None:
    """(DS-03, DS-14, DS-15)"""
    sandbox.fault(fault.pop("name"), times=-1, **fault)

    assert any(warning in text for text in (await seen(probe, sandbox))["warnings"])


async def test_a_difference_from_the_profile_names_the_setting(probe: Probe, sandbox: Sandbox) -> None:
    """(Q9, OR-06)"""
    sandbox.fault("discovery_members", times=-1, set={"scopes_supported": ["patient/Patient.read", "launch"]})

    assert (await seen(probe, sandbox))["differences"] == {"expand_wildcards": True}


async def test_metadata_that_is_xml_when_nobody_asks_is_told(probe: Probe, sandbox: Sandbox) -> None:
    """(EP-09)"""
    sandbox.play("epic")
    found = await seen(probe, sandbox, "epic")

    assert found["metadata_without_accept"].endswith("xml")


async def test_a_server_that_is_not_there_is_not_usable(probe: Probe) -> None:
    found = report(await probe("http://127.0.0.1:9/fhir"), "generic", profile("generic"), 0.0)

    assert not found["usable"]
    assert any("no connection" in text for text in found["warnings"])


async def test_a_private_address_is_not_asked(sandbox: Sandbox) -> None:
    """(DS-15)"""
    egress = Egress()
    found = report(await Probe(egress, system_clock)(sandbox.fhir_base), "generic", profile("generic"), 0.0)
    await egress.close()

    assert not found["usable"]
    assert not any(sandbox.counts().values())


async def test_tls_is_told_and_an_unknown_authority_is_a_problem(sandbox: Sandbox) -> None:
    """(TK-08)"""
    egress = Egress(allow_loopback_http=True)
    found = await Probe(egress, system_clock)(sandbox.fhir_base.replace("http://", "https://"))
    await egress.close()

    assert any("TLS: the certificate does not verify, or no TLS" in text for text in found.problems)


async def test_a_handshake_tells_version_and_end_of_the_certificate(tmp_path: Path) -> None:
    """(TK-08)"""
    with running_sandbox("--tls", str(tmp_path)) as sandbox:
        egress = Egress(allow_loopback_http=True, certificates=ssl.create_default_context(cafile=tmp_path / "ca.pem"))
        found = report(await Probe(egress, system_clock)(sandbox.fhir_base), "generic", profile("generic"), 0.0)
        await egress.close()

    assert found["tls"] == "TLSv1.3"
    assert found["certificate_ends"] > "2026"
