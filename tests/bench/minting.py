"""What it takes to issue a handle: by an app's secret, and by an assertion that it signed."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import ECKey

from broker.credentials import APP_SECRET, mint
from tests.bench.servers import PROXY_CORE, load

SECRET_APP, SIGNING_APP = "bench-secret", "bench-signing"
SCOPE: Final = "system/Patient.rs"
ASSERTIONS: Final = 6000
"""For one round: each can be used once."""
EHR_TOKEN: Final = json.dumps(
    {"access_token": "e" * 900, "token_type": "Bearer", "expires_in": 3600, "scope": SCOPE}, separators=(",", ":")
)
_SEND: Final = """
local number = 0
local bodies = {{ {bodies} }}
function request()
  number = number % #bodies + 1
  local headers = {{ {headers}, ["Content-Type"] = "application/x-www-form-urlencoded" }}
  return wrk.format("POST", nil, headers, bodies[number])
end
"""
_VERIFY: Final = """
import time
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
key = ec.generate_private_key(ec.SECP384R1())
signed, public = key.sign(b"x" * 300, ec.ECDSA(hashes.SHA384())), key.public_key()
for count in (100, 1000):
    before = time.process_time()
    for _ in range(count):
        public.verify(signed, b"x" * 300, ec.ECDSA(hashes.SHA384()))
print((time.process_time() - before) / count * 1e6)
"""


class Minters:
    """The two apps, and what they send."""

    def __init__(self) -> None:
        self.secret = mint(APP_SECRET, "", os.urandom)
        self.key = ECKey.generate_key("P-384", {"kid": "bench", "use": "sig", "alg": "ES384"})

    def toml(self) -> str:
        """Return their tables of `broker.toml`."""
        expires = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = hashlib.sha256(self.secret.reveal().encode()).hexdigest()
        access = f'[[app.access]]\nregistration = "backend"\nscopes = "{SCOPE}"\n'
        (x, y), kid = (self.key.as_dict(private=False)[name] for name in ("x", "y")), "bench"
        public = f'{{ kty = "EC", crv = "P-384", kid = "{kid}", use = "sig", alg = "ES384", x = "{x}", y = "{y}" }}'
        return f"""
[[registration]]
id = "backend"
ehr = ["plain"]
flow = "backend"
client_id = "bench-backend"
scopes = "{SCOPE}"
[[app]]
id = "{SECRET_APP}"
authentication = "client_secret_basic"
[[app.secret]]
hash = "sha256:{digest}"
expires = {expires}
{access}
[[app]]
id = "{SIGNING_APP}"
authentication = "private_key_jwt"
jwks = {{ keys = [{public}] }}
{access}
"""

    def by_secret(self, folder: Path, public_url: str) -> Path:
        """Return the script for wrk that asks with the secret."""
        basic = base64.b64encode(f"{SECRET_APP}:{self.secret.reveal()}".encode()).decode()
        return _script(folder / "secret.lua", [_form(public_url)], f'["Authorization"] = "Basic {basic}"')

    def by_assertion(self, folder: Path, public_url: str) -> Path:
        """Return one that asks with a new assertion each time."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": SIGNING_APP, "sub": SIGNING_APP, "aud": f"{public_url}/oauth/token", "iat": now, "exp": now + 240,
        }  # fmt: skip
        header = {"alg": "ES384", "kid": "bench", "typ": "JWT"}
        kind = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
        bodies = []
        for _ in range(ASSERTIONS):
            signed = jwt.encode(header, {**claims, "jti": os.urandom(16).hex()}, self.key, algorithms=["ES384"])
            bodies.append(f"{_form(public_url)}&client_assertion_type={kind}&client_assertion={signed}")
        return _script(folder / "assertions.lua", bodies, '["Accept"] = "application/json"')


def _form(public_url: str) -> str:
    return f"grant_type=client_credentials&scope={SCOPE.replace('/', '%2F')}&resource={public_url}/fhir/plain"


def _script(path: Path, bodies: Sequence[str], headers: str) -> Path:
    quoted = ", ".join(f'"{body}"' for body in bodies)
    path.write_text(_SEND.format(bodies=quoted, headers=headers))
    return path


def minting(minters: Minters, *, broker: int, url: str, folder: Path, rounds: int) -> dict[str, float]:
    """Measure both; a verification alone is measured on the same core in the same round."""
    endpoint = f"{url}/oauth/token"
    by_secret = minters.by_secret(folder, url)
    secret = [load(endpoint, broker, connections=32, seconds=2, script=by_secret).cpu_us for _ in range(rounds)]
    ratios = []
    for _ in range(rounds):
        script, bare = minters.by_assertion(folder, url), _verification_us()
        signed = load(endpoint, broker, connections=32, seconds=2, script=script)
        assert signed.requests < ASSERTIONS, "an assertion was sent twice"
        ratios.append(signed.cpu_us / bare)
    return {"mint_secret_per_s": 1e6 / median(secret), "mint_es384_vs_verify": median(ratios)}


def _verification_us() -> float:
    pinned = ["taskset", "-c", str(PROXY_CORE), sys.executable, "-c", _VERIFY]
    return float(subprocess.run(pinned, capture_output=True, text=True, check=True, timeout=60).stdout)
