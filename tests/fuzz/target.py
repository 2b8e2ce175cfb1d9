"""A broker on a loop of its own, so that tests may call it the way any blocking client does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal

from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from tests.stage import BrokerStage, Sandbox, open_stage
from tests.stage.app import LAUNCH_URI, REDIRECT_URI, App
from tests.stage.broker import APP_SECRET_TEXT
from tests.stage.prover import Prover

SCOPE = "launch/patient offline_access patient/*.rs"
"""Nothing that writes: the EHR's records are other tests' too."""
MORE = f"""
[[ehr]]
id = "other"
fhir_base = "http://127.0.0.1:1/fhir"

[[registration]]
id = "both"
ehr = ["sandbox", "other"]
flow = "launch"
client_id = "broker-launch"
scopes = "launch/patient patient/*.rs"
frame_ancestors = ["https://ehr.example"]
app = "framed"

[[app]]
id = "framed"
authentication = "none"
redirect_uris = ["{REDIRECT_URI}"]
launch_uri = "{LAUNCH_URI}"
[[app.access]]
registration = "both"
scopes = "launch/patient patient/*.rs"
"""
"""A registration at two EHRs, each with a callback of its own, whose launches may lie in a tab."""


JWT_HEADS = ("eyJhbG", "eyJraW", "eyJ0eX")
"""How a JWT begins whose first member is `alg`, `kid` or `typ`; less of it stands by chance in random identifiers."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running broker, and what an app and an EHR know of it."""

    stage: BrokerStage = field(repr=False)
    handle: str
    refresh_handle: str
    """Of another family than the handle, which so survives a replay."""
    patient: str
    prover: Prover = field(repr=False)
    """An app with a key, whose proofs are good."""
    bound_handle: str

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(urlsplit(self.stage.public_url).port or 0)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no answer may hold: what was handed out before, what the EHR issues (`canary-`), any JWT."""
        return (self.handle, self.refresh_handle, self.bound_handle, APP_SECRET_TEXT, "canary-", *JWT_HEADS)


@contextmanager
def running_target(sandbox: Sandbox, server: EmbeddedServer, state: Path) -> Iterator[Target]:
    """Serve a broker until the block ends."""
    redis = connect(server.url())
    with start_blocking_portal() as portal:
        portal.call(redis.flushall)
        with portal.wrap_async_context_manager(open_stage(sandbox, redis, state, more=MORE)) as stage:
            given, other = portal.call(_launched, stage.app()), portal.call(_launched, stage.app())
            prover = Prover(stage.base)
            bound = portal.call(_launched, prover)
            yield Target(
                stage,
                given["access_token"],
                other["refresh_token"],
                given["patient"],
                prover,
                bound["access_token"],
            )
        portal.call(redis.aclose)


async def _launched(app: App) -> dict[str, Any]:
    try:
        return await app.standalone(scope=SCOPE)
    finally:
        await app.close()
