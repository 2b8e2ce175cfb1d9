"""The walk-through for vendors' sandboxes: every block loads, every address is the one that the broker would print."""

import re
from pathlib import Path
from typing import Final

import pytest

from broker.apps import Directory
from broker.profiles import Profile, profile_names
from broker.settings import Settings, load
from tests.docs.pages import read

PUBLIC_URL: Final = "https://broker.example.org"
PAGE: Final = read("docs/vendors.md")
BLOCKS: Final = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
SECRETS: Final = {"ORACLE_CLIENT_SECRET": "canary", "ATHENA_CLIENT_SECRET": "canary"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """All blocks of the page as one file."""
    (tmp_path / "broker.toml").write_text(f'public_url = "{PUBLIC_URL}"\n' + "\n".join(BLOCKS))
    return load(tmp_path / "broker.toml", SECRETS)


def test_every_block_loads_with_a_profile_of_its_vendor(settings: Settings) -> None:
    """(EP-01, EP-02, OR-01)"""
    assert len(BLOCKS) == 4
    assert [ehr.id for ehr in settings.ehr] == ["epic-sandbox", "smart-launcher", "oracle-provider", "athena-preview"]
    assert {ehr.environment for ehr in settings.ehr} == {"non_production"}
    assert settings.ehr[0].fhir_base == "https://fhir.epic.com/interconnect-fhir-oauth/api/FHIR/R4"


def test_every_address_on_the_page_is_one_that_the_broker_prints(settings: Settings) -> None:
    """(RG-01, RG-02, RG-03)"""
    directory = Directory(settings)
    printed = {
        url
        for registration in settings.registration
        for url in (
            f"{PUBLIC_URL}/launch/{registration.id}",
            directory.callback_uri(registration, registration.ehr[0]),
            f"{PUBLIC_URL}/jwks/{registration.id}",
        )
    }
    written = set(re.findall(rf"`({re.escape(PUBLIC_URL)}/[^`]+)`", PAGE))

    assert len(written) == 11
    assert written <= printed


def test_every_setting_that_the_page_advises_exists() -> None:
    advised = set(re.findall(r"`(\w+) = ", PAGE)) - {"environment", "ehr", "dynamic_client"}

    assert {"scope_dialect", "basic_encoding", "expand_wildcards", "assertion_audience"} <= advised
    assert advised <= set(Profile.model_fields)
    assert {"epic", "oracle", "athena", "smart-launcher"} <= set(profile_names())
