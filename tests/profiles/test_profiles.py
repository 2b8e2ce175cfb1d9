"""Vendors' behaviour is data: every file loads, every setting is known from somewhere, and wins where it should."""

import re
import tomllib
from importlib.resources import files
from typing import Any, Final

import pytest
from pydantic import ValidationError

from broker.profiles import Profile, profile, profile_names, profile_sources
from broker.settings import EhrSettings

KNOWN_FROM: Final = re.compile(r"\b(?:Q\d+|[A-Z]{2}-\d{2}|RFC \d{4}|FHIR R4|OpenID Connect|OIDC)\b")


def said(name: str) -> dict[str, Any]:
    """Return what a file itself says."""
    text = files("broker.profiles").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_and_says_nothing_without_a_source(name: str) -> None:
    assert isinstance(profile(name), Profile)
    file = said(name)
    assert file.keys() == {"title", "settings"}
    assert file["settings"].keys() <= Profile.model_fields.keys()
    for setting, entry in file["settings"].items():
        assert entry.keys() == {"value", "source"}, setting
        assert KNOWN_FROM.search(entry["source"]), setting


def test_the_generic_profile_says_every_setting() -> None:
    assert said("generic")["settings"].keys() == Profile.model_fields.keys()
    assert profile_sources("generic").keys() == Profile.model_fields.keys()


@pytest.mark.parametrize("name", sorted(set(profile_names()) - {"generic"}))
def test_a_vendors_profile_is_the_generic_one_with_its_own_settings_over_it(name: str) -> None:
    own = {setting: entry["value"] for setting, entry in said(name)["settings"].items()}

    assert own
    assert profile(name) == Profile.model_validate({**profile("generic").model_dump(), **own})


def test_there_is_no_profile_of_another_name() -> None:
    with pytest.raises(KeyError):
        profile("../epic")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("basic_encoding", {"epic": "rfc6749", "oracle": "raw", "smart-launcher": "raw"}),
        ("client_id_header", {"epic": "Epic-Client-ID", "oracle": ""}),
        ("fhir_accept", dict.fromkeys(("epic", "ecw", "nextgen"), "application/json+fhir")),
        ("authorize_post", {"epic": "ehr_launch", "generic": "any_launch"}),
        (
            "authorize_audience",
            {"epic": "fhir_base", **dict.fromkeys(("advancedmd", "cigna", "nextgen", "va", "nhs", "quest"), "omit")},
        ),
        (
            "audience_slash",
            dict.fromkeys(
                (
                    "careevolution",
                    "anthem",
                    "ecw",
                    "medhost",
                    "netsmart",
                    "qualifacts",
                    "flatiron",
                    "onemedical",
                ),
                "strip",
            ),
        ),
        ("scope_dialect", {"oracle": "v1", "epic": "auto"}),
        ("refresh_interval", {"oracle": 60, "generic": 0}),
        ("refresh_while_alive", {"athena": True, "epic": False}),
        ("introspection_authentication", {"epic": "bearer", "generic": "client"}),
    ],
)
def test_what_is_known_of_vendors_is_in_their_profiles(setting: str, expected: dict[str, object]) -> None:
    """(EP-08, EP-09, EP-11, EP-13, EP-20, OR-04, OR-06, OT-02, OT-03)"""
    assert {name: getattr(profile(name), setting) for name in expected} == expected


def ehr(**table: object) -> EhrSettings:
    return EhrSettings.model_validate({"id": "general", "fhir_base": "https://ehr.example/r4", **table})


def test_an_ehr_can_have_any_setting_otherwise_than_its_profile() -> None:
    own = ehr(profile="epic", scope_dialect="v1").profile

    assert own == profile("epic").model_copy(update={"scope_dialect": "v1"})


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"profile": "nobody"}, "there is no profile 'nobody'"),
        ({"profile": 5}, "there is no profile '5'"),
        ({"scope_dialect": "v3"}, "Input should be 'v1', 'v2' or 'auto'"),
        ({"refresh_interval": -1}, "greater than or equal to 0"),
        ({"client_id_header": "Authorization"}, "Input should be"),
        ({"authorize_audience": "javascript:alert(1)"}, "should match pattern"),
    ],
)
def test_a_setting_that_no_profile_could_have_is_refused(table: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(fault)):
        ehr(**table)
