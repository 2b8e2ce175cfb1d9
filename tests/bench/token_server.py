"""`python -m tests.bench.token_server`: token endpoint and FHIR server of an EHR that costs next to nothing.

It knows every grant without having been told: a token names its grant's number, its generation and, an access token,
its end. Refresh tokens rotate. What must not happen is counted: a refresh token that comes twice, an access token that
comes after its end.
"""

import asyncio
import json
import time
from collections import Counter, defaultdict
from typing import Final, cast
from urllib.parse import parse_qs

import uvloop

READY: Final = "token server: ready "
LIFETIME: Final = 3600
ACCESS_BYTES, REFRESH_BYTES = 1060, 300


def access_token(number: int, generation: int, end: float) -> str:
    """Return an access token that is as long as a JWT."""
    return f"at.{number}.{generation}.{end:.3f}.".ljust(ACCESS_BYTES, "a")


def refresh_token(number: int, generation: int) -> str:
    """Return a refresh token."""
    return f"rt.{number}.{generation}.".ljust(REFRESH_BYTES, "r")


class Ehr:
    """What all connections share."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.generations: defaultdict[int, int] = defaultdict(lambda: 1)
        self.origin = ""

    def answer(self, head: str, body: bytes) -> tuple[int, object]:
        """Return status and JSON."""
        method, path, _ = head.split(" ", 2)
        if path == "/__counts":
            return 200, self.counts
        if path.endswith("/.well-known/smart-configuration"):
            return 200, self._configuration()
        return self._token(body) if method == "POST" else self._read(head)

    def _configuration(self) -> object:
        return {
            "issuer": self.origin,
            "token_endpoint": f"{self.origin}/token",
            "authorization_endpoint": f"{self.origin}/authorize",
            "capabilities": ["launch-standalone", "client-confidential-symmetric", "permission-v2"],
            "grant_types_supported": ["authorization_code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }

    def _token(self, body: bytes) -> tuple[int, object]:
        _, number, generation, _ = parse_qs(body.decode())["refresh_token"][0].split(".")
        grant, seen = int(number), int(generation)
        if self.generations[grant] != seen:
            self.counts["duplicates"] += 1
            return 400, {"error": "invalid_grant"}
        self.generations[grant] += 1
        self.counts["refreshes"] += 1
        following, now = seen + 1, time.time()
        return 200, {
            "access_token": access_token(grant, following, now + LIFETIME),
            "refresh_token": refresh_token(grant, following),
            "token_type": "Bearer",
            "expires_in": LIFETIME,
            "scope": "patient/*.rs offline_access",
        }

    def _read(self, head: str) -> tuple[int, object]:
        lines = (line.partition(":") for line in head.split("\r\n"))
        bearer = next(value for name, _, value in lines if name.lower() == "authorization")
        end = float(".".join(bearer.split(".")[3:5]))
        self.counts["calls"] += 1
        self.counts["late"] += time.time() > end
        return 200, {"resourceType": "Patient", "id": "1"}


class Connection(asyncio.Protocol):
    """HTTP/1.1 as far as the broker speaks it."""

    def __init__(self, ehr: Ehr) -> None:
        self.ehr = ehr
        self.transport: asyncio.Transport | None = None
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to answer."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            text = head.decode("latin-1")
            named = [line for line in text.split("\r\n") if line.lower().startswith("content-length:")]
            length = int(named[0].partition(":")[2]) if named else 0
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            status, said = self.ehr.answer(text, rest[:length])
            body = json.dumps(said).encode()
            assert self.transport is not None
            self.transport.write(
                b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
                + body
            )


async def main() -> None:
    """Serve until killed."""
    ehr = Ehr()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(ehr), "127.0.0.1", 0, backlog=512)
    ehr.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(f"{READY}{ehr.origin}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
