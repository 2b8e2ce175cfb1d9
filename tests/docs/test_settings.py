"""Every setting is documented as it is, and no other."""

import json
import re
import tomllib
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_args

import pytest
from pydantic import BaseModel

from broker.profiles import Profile
from broker.profiles.profile import GENERIC
from broker.settings import (
    Access,
    AppSettings,
    Deployment,
    EhrSettings,
    IssuerSettings,
    RegistrationSettings,
    Settings,
    WebhookSettings,
    load,
)
from broker.settings.deployment import VARIABLES
from broker.settings.limits import LimitSettings
from broker.settings.proof import AppSecret, Workload
from tests.docs import profiles
from tests.docs.pages import PAGES, ROOT, code, read, rows, section

TABLES: Final = {
    "### Top level": Settings,
    "### `[[ehr]]`": EhrSettings,
    "### `[[registration]]`": RegistrationSettings,
    "### `[[app]]`": AppSettings,
    "### `[[app.secret]]`": AppSecret,
    "### `[app.workload]`": Workload,
    "### `[[app.access]]`": Access,
    "### `[app.limits]`": LimitSettings,
    "### `[[issuer]]`": IssuerSettings,
    "### `[[webhook]]`": WebhookSettings,
}


def written_default(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.annotation is Profile:
        return f'`"{GENERIC}"`'
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    default = list(default) if isinstance(default, tuple) else default
    return "none" if default is None else f"`{json.dumps(default)}`"


@pytest.mark.parametrize(("heading", "model"), TABLES.items())
def test_every_settings_key_is_documented_with_its_default(heading: str, model: type[BaseModel]) -> None:
    table = rows(section(read("docs/configuration.md"), heading), "Key | Type | Default | Meaning")

    documented = {code(row[0]): row[2] for row in table}
    assert documented == {name: written_default(model, name) for name in model.model_fields}


@pytest.mark.parametrize(("heading", "model"), TABLES.items())
def test_documented_choices_are_the_choices(heading: str, model: type[BaseModel]) -> None:
    table = rows(section(read("docs/configuration.md"), heading), "Key | Type | Default | Meaning")

    documented = {code(row[0]): set(re.findall(r'`"([^"]+)"`', row[1])) for row in table}
    for name, field in model.model_fields.items():
        choices = get_args(field.annotation)
        if NoneType in choices:  # `Literal[…] | None`
            choices = get_args(choices[0])
        words = {choice for choice in choices if isinstance(choice, str)}
        assert documented[name] == words, name


def test_every_setting_of_every_profile_is_documented_with_its_value_and_source() -> None:
    page = read(profiles.PAGE)

    assert page == profiles.written(page), "./run python -m tests.docs.profiles"


def test_every_setting_of_a_profile_says_what_it_means() -> None:
    assert all(field.description for field in Profile.model_fields.values())


def test_every_variable_is_documented_with_its_default() -> None:
    table = {code(row[0]): row[1] for row in rows(read("docs/configuration.md"), "Variable | Default | Meaning")}

    assert table.keys() == VARIABLES.keys()
    default = Deployment.read({})
    assert {
        name: cell.strip("`") for name, cell in table.items() if cell not in ("none", "`audit.jsonl` in `BROKER_STATE`")
    } == {
        "BROKER_CONFIG": str(default.config),
        "BROKER_STATE": str(default.state),
        "BROKER_HOST": default.host,
        "BROKER_PORT": str(default.port),
        "BROKER_REDIS_DURABILITY": default.durability,
        "BROKER_DRAIN_SECONDS": str(default.drain_seconds),
    }
    assert default.audit_file == default.state / "audit.jsonl"
    assert (default.redis_url, default.proxies) == (None, ())


def test_no_page_names_a_variable_that_does_not_exist() -> None:
    kubernetes = {"BROKER_SERVICE_HOST", "BROKER_PORT_8080_TCP"}
    for path in [*PAGES, ROOT / "compose.yaml", ROOT / "docs/deploy/Dockerfile"]:
        named = set(re.findall(r"\bBROKER_[A-Z0-9_]+\b", path.read_text(encoding="utf-8")))
        assert named - kubernetes <= VARIABLES.keys(), path.name


def test_the_complete_example_loads_and_has_every_key(tmp_path: Path) -> None:
    toml = section(read("docs/configuration.md"), "## A complete example").split("```toml\n")[1].split("```")[0]
    (tmp_path / "broker.toml").write_text(toml)

    environ = {"GENERAL_CHART_SECRET": "a secret of the example", "WEBHOOK_SECRET": "whsec_" + "A" * 32}
    load(tmp_path / "broker.toml", environ)

    tables = tomllib.loads(toml)
    assert set(Settings.model_fields) == tables.keys()
    in_files = {"certificate", "certificate_key"}
    unwritten = in_files | {"ca_file"}
    assert set(EhrSettings.model_fields) - unwritten == keys_of(tables["ehr"]) - Profile.model_fields.keys()
    assert 'ca_file = "' in toml
    assert set(RegistrationSettings.model_fields) - in_files == keys_of(tables["registration"])
    assert all(f'{key} = "file:' in toml for key in in_files)
    assert set(AppSettings.model_fields) - {"jwks"} == keys_of(tables["app"])
    assert "[app.jwks]" in toml
    for model, table in ((Access, "access"), (AppSecret, "secret")):
        assert set(model.model_fields) == keys_of([entry for app in tables["app"] for entry in app.get(table, [])])
    assert set(LimitSettings.model_fields) == keys_of([app["limits"] for app in tables["app"] if "limits" in app])
    assert set(Workload.model_fields) == keys_of([app["workload"] for app in tables["app"] if "workload" in app])
    assert set(WebhookSettings.model_fields) == keys_of(tables["webhook"])
    assert set(IssuerSettings.model_fields) - {"jwks", "jwks_file", "trust_domain"} == keys_of(tables["issuer"])


def keys_of(tables: list[dict[str, Any]]) -> set[str]:
    return {key for table in tables for key in table}
