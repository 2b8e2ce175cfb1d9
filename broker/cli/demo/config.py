"""The demo's `broker.toml`, as a person would write it, and the registrations that match it at the EHR."""

from datetime import date
from typing import Final

_LAUNCH_SCOPES: Final = "launch launch/patient openid fhirUser offline_access patient/*.rs"
_BACKEND_SCOPES: Final = "system/*.rs"

_TOML: Final = """\
# The demo's configuration. docs/configuration.md explains every key.
public_url = "{broker_url}"
allow_loopback_http = true        # only because everything runs on this machine

[[ehr]]                           # a FHIR base URL and whatever authorization server it names
id = "sandbox"
name = "Simulated EHR"
fhir_base = "{sandbox_url}/api/FHIR/R4"

[[registration]]                  # the broker as a client of that EHR, for people
id = "sandbox-launch"
ehr = "sandbox"
flow = "launch"
client_id = "broker-launch"
authentication = "private_key_jwt"   # the EHR fetches {broker_url}/jwks/sandbox-launch
scopes = "{launch_scopes}"
app = "growth-chart"              # what the EHR's "Launch app" button opens

[[registration]]                  # the same, for programs without a user
id = "sandbox-backend"
ehr = "sandbox"
flow = "backend"
client_id = "broker-backend"
signing_algorithm = "RS384"
scopes = "{backend_scopes}"

[[app]]                           # a client of the broker: public, PKCE
id = "growth-chart"
name = "Growth chart"
authentication = "none"
redirect_uris = ["{app_url}/callback"]
launch_uri = "{app_url}/launch"

[[app.access]]                    # all it may ever have
registration = "sandbox-launch"
scopes = "launch launch/patient fhirUser offline_access patient/*.rs"

[[app]]                           # a nightly report: confidential
id = "reports"
name = "Nightly report"
authentication = "client_secret_basic"

[[app.secret]]                    # one of at most two; `broker apps secret` prints such a table
hash = "sha256:{secret_hash}"
expires = {expires}

[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs system/Observation.rs"
"""


def broker_toml(broker_url: str, sandbox_url: str, app_url: str, secret_hash: str, expires: date) -> str:
    """Return the text of the demo's `broker.toml`."""
    return _TOML.format(
        broker_url=broker_url,
        sandbox_url=sandbox_url,
        app_url=app_url,
        secret_hash=secret_hash,
        expires=expires,
        launch_scopes=_LAUNCH_SCOPES,
        backend_scopes=_BACKEND_SCOPES,
    )


def sandbox_clients(broker_url: str) -> list[dict[str, object]]:
    """Return the broker's two client registrations, as the EHR's administrator would enter them."""
    return [
        {
            "client_id": "broker-launch",
            "client_name": "Growth chart (through the token broker)",
            "authentication": "private_key_jwt",
            "jwks_uri": f"{broker_url}/jwks/sandbox-launch",
            "redirect_uris": [f"{broker_url}/callback/sandbox-launch"],
            "launch_uri": f"{broker_url}/launch/sandbox-launch",
            "scopes": _LAUNCH_SCOPES,
            "refresh": "rotate",
        },
        {
            "client_id": "broker-backend",
            "client_name": "Nightly report (through the token broker)",
            "authentication": "private_key_jwt",
            "jwks_uri": f"{broker_url}/jwks/sandbox-backend",
            "grant_types": ["client_credentials"],
            "scopes": _BACKEND_SCOPES,
        },
    ]
