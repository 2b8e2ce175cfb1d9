"""A good `broker.toml`, and how a test spoils it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.errors import ConfigurationError
from broker.settings import Settings, load

CANARY = "canary-9ab0"
NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
HASH = "sha256:" + "0" * 64
GOOD = f"""\
public_url = "https://broker.example"
tenant = "clinic"

[[ehr]]
id = "epic"
name = "Epic"
fhir_base = "https://epic.example/fhir/R4/"

[[ehr]]
id = "cerner"
fhir_base = "https://cerner.example/r4"
refresh_tokens = "reusable"
token_timeout = 5
fhir_timeout = 60

[[registration]]
id = "epic-launch"
ehr = "epic"
flow = "launch"
client_id = "broker"
scopes = "launch openid fhirUser offline_access patient/*.rs"
app = "growth"

[[registration]]
id = "epic-backend"
ehr = "epic"
flow = "backend"
client_id = "broker-backend"
signing_algorithm = "RS384"
scopes = "system/Patient.rs"

[[registration]]
id = "cerner-launch"
ehr = "cerner"
flow = "launch"
client_id = "broker"
authentication = "client_secret_basic"
client_secret = "env:CERNER_SECRET"
scopes = "patient/Observation.rs"

[[app]]
id = "growth"
name = "Growth chart"
authentication = "none"
redirect_uris = ["https://growth.example/callback"]
launch_uri = "https://growth.example/launch"

[[app.access]]
registration = "epic-launch"
scopes = "patient/Observation.rs patient/Patient.r"

[[app.access]]
registration = "cerner-launch"
scopes = "patient/Observation.rs"

[[app]]
id = "nightly"
authentication = "client_secret_basic"
handle_lifetime = 60

[[app.secret]]
hash = "{HASH}"
expires = 2027-02-01

[[app.access]]
registration = "epic-backend"
scopes = "system/Patient.rs"
"""
ENVIRON = {"CERNER_SECRET": CANARY}


def load_text(folder: Path, text: str, environ: Mapping[str, str] = ENVIRON) -> Settings:
    path = folder / "broker.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ, lambda: NOW)


def faults_of(folder: Path, text: str, environ: Mapping[str, str] = ENVIRON) -> list[str]:
    """Return the faults, the file's path cut down to its name."""
    with pytest.raises(ConfigurationError) as raised:
        load_text(folder, text, environ)
    return [fault.replace(f"{folder}/", "") for fault in raised.value.faults]


def spoiled(old: str, new: str) -> str:
    """Return the good file with its only `old` replaced."""
    assert GOOD.count(old) == 1, f"{old!r} stands {GOOD.count(old)} times in the good file"
    return GOOD.replace(old, new)
