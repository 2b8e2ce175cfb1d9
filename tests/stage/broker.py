"""The broker on a real port, on the test's own event loop, so that a test can move its clock."""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import uvicorn
from redis.asyncio import Redis

from broker.app import Broker, open_broker
from broker.credentials import APP_SECRET, mint
from broker.kms.signing import RemoteSigning
from broker.settings import load
from broker.settings.deployment import CertificateHeader
from broker.vault import KeyEncryptionKeys, LocalKeyring
from broker.web.server import server_config
from tests.stage.app import LAUNCH_URI, REDIRECT_URI, App
from tests.stage.clock import MovableClock
from tests.stage.sandbox import Sandbox

EHR: Final = "sandbox"
KEY: Final = bytes(range(32))
LAUNCH_SCOPES: Final = (
    "launch launch/patient openid fhirUser offline_access online_access patient/*.cruds user/Practitioner.rs"
)
BACKEND_SCOPES: Final = "system/*.cruds"
SANDBOX_SCOPES: Final = f"{LAUNCH_SCOPES} {BACKEND_SCOPES} patient/*.read"
APP_SECRET_TEXT: Final = mint(APP_SECRET, "", lambda count: hashlib.sha256(b"stage").digest()[:count]).reveal()

_TOML: Final = """
public_url = "{public_url}"
allow_loopback_http = true
{top}

[[ehr]]
id = "sandbox"
fhir_base = "{fhir_base}"
token_timeout = 4
refresh_tokens = "{refresh_tokens}"
{ehr}

[[registration]]
id = "sandbox-launch"
ehr = "sandbox"
flow = "launch"
client_id = "broker-launch"
authentication = "{authentication}"
{secret}
scopes = "{launch_scopes}"
app = "growth-chart"
{registration}

[[registration]]
id = "sandbox-backend"
ehr = "sandbox"
flow = "backend"
client_id = "broker-backend"
signing_algorithm = "RS384"
scopes = "{backend_scopes}"

[[app]]
id = "growth-chart"
authentication = "none"
redirect_uris = ["{redirect_uri}"]
launch_uri = "{launch_uri}"
[[app.access]]
registration = "sandbox-launch"
scopes = "launch launch/patient openid fhirUser offline_access patient/*.rs patient/Observation.cruds"

[[app]]
id = "reports"
authentication = "client_secret_basic"
redirect_uris = ["{redirect_uri}"]
[[app.secret]]
hash = "{secret_hash}"
expires = {expires}
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs system/Observation.rs"
[[app.access]]
registration = "sandbox-launch"
scopes = "launch/patient patient/Patient.rs"
{more}
"""


@dataclass
class BrokerStage:
    """A broker that can be talked to."""

    broker: Broker
    public_url: str
    redis: Redis
    sandbox: Sandbox
    state: Path
    clock: MovableClock

    @property
    def base(self) -> str:
        """The FHIR base URL that apps are given."""
        return f"{self.public_url}/fhir/{EHR}"

    def app(self, client_id: str = "growth-chart") -> App:
        """Make an app; `reports` has a secret."""
        return App(self.base, client_id, auth=("reports", APP_SECRET_TEXT) if client_id == "reports" else None)

    def audit_lines(self) -> list[str]:
        """Return what the audit file holds."""
        return (self.state / "audit.jsonl").read_text().splitlines()


def days_ahead(days: int) -> date:
    """Return a date for a secret to expire."""
    return (datetime.now(UTC) + timedelta(days=days)).date()


def stage_toml(
    public_url: str,
    fhir_base: str,
    *,
    authentication: str = "private_key_jwt",
    refresh_tokens: str = "rotating",
    ehr: str = "",
    registration: str = "",
    more: str = "",
    top: str = "",
) -> str:
    """Return the stage's broker.toml; `ehr` and `registration` are more lines of the sandbox's EHR and launch table."""
    return _TOML.format(
        public_url=public_url,
        fhir_base=fhir_base,
        authentication=authentication,
        secret='client_secret = "env:STAGE_SECRET"' if authentication.startswith("client_secret_") else "",
        ehr=ehr,
        registration=registration,
        refresh_tokens=refresh_tokens,
        launch_scopes=LAUNCH_SCOPES,
        backend_scopes=BACKEND_SCOPES,
        redirect_uri=REDIRECT_URI,
        launch_uri=LAUNCH_URI,
        secret_hash="sha256:" + hashlib.sha256(APP_SECRET_TEXT.encode()).hexdigest(),
        expires=days_ahead(399),
        more=more,
        top=top,
    )


def register_broker(
    sandbox: Sandbox, public_url: str, *, authentication: str, refresh: str, client: Mapping[str, object]
) -> dict[str, str]:
    """Register the broker's two clients at the sandbox; returns the environment with what it was given."""
    keyed = {"jwks_uri": f"{public_url}/jwks/sandbox-launch"} if authentication == "private_key_jwt" else {}
    launch = sandbox.register(
        client_id="broker-launch",
        authentication=authentication,
        **keyed,
        redirect_uris=[f"{public_url}/callback/sandbox-launch"],
        launch_uri=f"{public_url}/launch/sandbox-launch",
        **{"scopes": SANDBOX_SCOPES, "refresh": refresh, **client},
    )
    sandbox.register(
        client_id="broker-backend",
        authentication="private_key_jwt",
        jwks_uri=f"{public_url}/jwks/sandbox-backend",
        grant_types=["client_credentials"],
        scopes=BACKEND_SCOPES,
    )
    return {"STAGE_SECRET": launch.get("client_secret", "")}


@asynccontextmanager
async def open_stage(
    sandbox: Sandbox,
    redis: Redis,
    state: Path,
    *,
    authentication: str = "private_key_jwt",
    refresh: str = "rotate",
    refresh_tokens: str = "rotating",
    ehr: str = "",
    registration: str = "",
    client: Mapping[str, object] | None = None,
    more: str = "",
    top: str = "",
    fhir_base: str | None = None,
    certificate_header: CertificateHeader | None = None,
    kek: KeyEncryptionKeys | None = None,
    signing: RemoteSigning | None = None,
) -> AsyncIterator[BrokerStage]:
    """Serve a broker for this sandbox until the block ends; `client` is more of what the EHR has on file of it.

    The proxies of `certificate_header` are believed in what they forward, too.
    """
    # Opened again by number, so that its protocol is known: asyncio turns Nagle's delay off only where it is TCP's.
    listener = socket.socket(fileno=socket.create_server(("127.0.0.1", 0)).detach())
    public_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    on_file = client or {}
    environ = register_broker(sandbox, public_url, authentication=authentication, refresh=refresh, client=on_file)
    config, clock = state / "broker.toml", MovableClock()
    toml = stage_toml(
        public_url,
        fhir_base or sandbox.fhir_base,
        authentication=authentication,
        refresh_tokens=refresh_tokens,
        ehr=ehr,
        registration=registration,
        more=more,
        top=top,
    )
    config.write_text(toml)
    settings = load(config, {**os.environ, **environ})
    proxies = certificate_header.proxies if certificate_header else ()
    async with open_broker(
        settings,
        redis=redis,
        kek=kek or LocalKeyring([KEY]),
        signing=signing,
        audit_file=state / "audit.jsonl",
        certificate_header=certificate_header,
        clock=clock,
        keep_every=None,  # a test says itself when the keeper looks
    ) as broker:
        server = uvicorn.Server(server_config(broker.application, proxies=proxies))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110  # uvicorn says it in no other way
            await asyncio.sleep(0.005)
        try:
            yield BrokerStage(broker, public_url, redis, sandbox, state, clock)
        finally:
            server.should_exit = True
            await serving
            listener.close()
