"""What a FHIR request through the broker costs, as shares of what bare nginx takes for it in the same run.

The method is that of the performance notes: the proxy and its limit on one core, everything else on the other; paired
rounds, limit before and after; processor time for each completed request, because nginx is faster than what loads it.
"""

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import httpx2

from broker.app import open_broker
from broker.credentials import new_tag
from broker.grants import LaunchContext, Terms, TokenSet
from broker.scopes import Scopes
from broker.secret import Secret
from broker.settings import load as load_settings
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer, wheel_server
from broker.vault import LocalKeyring
from tests.bench.minting import EHR_TOKEN, Minters, minting
from tests.bench.revocation import revocation
from tests.bench.servers import (
    OTHER_CORE,
    PROXY_CORE,
    Load,
    await_port,
    ehr,
    free_port,
    limit,
    load,
    missing,
    on_core,
    resident_mb,
    rotation,
)
from tests.ehr.test_egress import certificate_for

HANDLES: Final = 64
KEY: Final = bytes(range(32))
TOKEN: Final = "raw." + "t" * 896
SCOPES: Final = "patient/*.rs"
PATIENT: Final = "p1"
SECONDS: Final = 2
READ, SEARCH, STREAM, FILE = f"Patient/{PATIENT}", f"Observation?patient={PATIENT}", "Binary/big", "Binary/file"
TOML: Final = """
public_url = "http://127.0.0.1:{port}"
allow_loopback_http = true
allow_private_hosts = ["127.0.0.1"]
[[ehr]]
id = "plain"
fhir_base = "http://127.0.0.1:{ehr}/fhir"
[[ehr]]
id = "tls"
fhir_base = "https://127.0.0.1:{tls}/fhir"
[[registration]]
id = "launch"
ehr = ["plain", "tls"]
flow = "launch"
client_id = "bench"
authentication = "none"
scopes = "{scopes}"
[[app]]
id = "bench"
authentication = "none"
redirect_uris = ["http://127.0.0.1:1/callback"]
requests_per_minute = 6000000
[[app.access]]
registration = "launch"
scopes = "{scopes}"
"""


def write_files(home: Path, base: str) -> None:
    """Lay out what the EHR has: a Patient of 3 KB, a Bundle of 30 KB whose links are rewritten, and 1 GB."""
    files = home / "files/fhir"
    for kind in ("Patient", "Binary"):
        (files / kind).mkdir(parents=True)
    patient = {"resourceType": "Patient", "id": PATIENT, "text": {"status": "generated", "div": "x" * 2900}}
    (files / f"Patient/{PATIENT}.json").write_text(json.dumps(patient))
    entries = [
        {
            "fullUrl": f"{base}/Observation/{n}",
            "resource": {
                "resourceType": "Observation",
                "id": str(n),
                "subject": {"reference": f"Patient/{PATIENT}"},
                "note": [{"text": "y" * 420}],
            },
        }
        for n in range(50)
    ]
    links = [{"relation": "self", "url": f"{base}/Observation?patient={PATIENT}"}]
    bundle = {"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entries}
    (files / "Observation.json").write_text(json.dumps(bundle))
    with (files / "Binary/big").open("wb") as big:
        big.truncate(2**30)
    with (files / "Binary/file").open("wb") as file:
        file.truncate(20 << 20)


@dataclass
class Field:
    """Everything that runs."""

    broker: int
    """Process id."""
    port: int
    handles: dict[str, list[str]]
    scripts: dict[str, Path]
    ehr: tuple[int, int]
    state: Path
    store: str
    rounds: int
    minters: Minters
    serve: Callable[[int, str], int]
    """Starts one more process on a port, with a state directory of that name."""
    results: dict[str, float] = field(default_factory=dict)

    def url(self, path: str, ehr: str = "plain") -> str:
        """Return where the broker gives it."""
        return f"http://127.0.0.1:{self.port}/fhir/{ehr}/{path}"


async def measure() -> dict[str, float]:
    """Put reads, Bundles and streams through the broker and bare nginx, issue and revoke handles (--full: 7 rounds)."""
    if lacking := missing():
        print(f"not measured: {', '.join(lacking)} not installed. Fix: apt-get install nginx-light wrk util-linux")
        return {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = await _set_up(Path(folder), stack, rounds=7 if "--full" in sys.argv else 3)
        await _check(place)
        audited = _audited(place)
        total = _reads(place)
        assert _audited(place) - audited >= 2 * total, "each request is in the audit trail, and its answer"
        _streams(place)
        url = f"http://127.0.0.1:{place.port}"
        place.results |= minting(place.minters, broker=place.broker, url=url, folder=place.state, rounds=place.rounds)
        place.results |= await _revocation(place)
        return place.results


async def _set_up(home: Path, stack: ExitStack, *, rounds: int) -> Field:
    (home / "ehr").mkdir()
    _certificate(home / "ehr")
    plain, tls = stack.enter_context(ehr(home / "ehr", TOKEN, answer=EHR_TOKEN))
    write_files(home / "ehr", f"http://127.0.0.1:{plain}/fhir")
    store = stack.enter_context(EmbeddedServer.start(home, server=wheel_server()))
    port = free_port()
    config = home / "broker.toml"
    minters = Minters()
    config.write_text(TOML.format(port=port, ehr=plain, tls=tls, scopes=SCOPES) + minters.toml())
    environ = {
        **os.environ,
        "BROKER_KEK": base64.b64encode(KEY).decode(),
        "BROKER_REDIS_URL": store.url().reveal(),
        "SSL_CERT_FILE": str(home / "ehr/cert.pem"),
    }
    handles = await _issue(config, store.url(), home)
    log = stack.enter_context((home / "log").open("wb"))

    def serve(port: int, state: str) -> int:
        command = [sys.executable, "-m", "broker", "serve", "--config", str(config), "--state", str(home / state)]
        serving = on_core(PROXY_CORE, [*command, "--port", str(port)], env=environ, stdout=log, stderr=log)
        broker = stack.enter_context(serving)
        await_port(port)
        return broker

    broker = serve(port, "state")
    scripts = {}
    for name, some in handles.items():
        (home / name).mkdir()
        scripts[name] = rotation(some, home / name)
    return Field(broker, port, handles, scripts, (plain, tls), home, store.url().reveal(), rounds, minters, serve)


def _certificate(home: Path) -> None:
    certificate_for("127.0.0.1", home)
    (home / "certificate.pem").rename(home / "cert.pem")


async def _issue(config: Path, store: Secret, home: Path) -> dict[str, list[str]]:
    """Store grants whose tokens live, with a handle each, as a launch leaves them."""
    redis = connect(store)
    settings, handles = load_settings(config, {}), dict[str, list[str]]()
    async with open_broker(
        settings, redis=redis, kek=LocalKeyring([KEY]), audit_file=home / "setup.jsonl", keep_every=None
    ) as broker:
        end = time.time() + 3600
        for one in settings.ehr:
            for _ in range(HANDLES):
                tag = new_tag(os.urandom)
                context = LaunchContext(patient=PATIENT)
                terms = Terms(one.id, one.fhir_base, "launch", "launch", "bench", Scopes.parse(SCOPES), context)
                await broker.grants.create(tag, terms, TokenSet(Secret(TOKEN), None, end, end, 3600.0))
                issued = await broker.handles.issue(
                    tag=tag, app="bench", ehr=one.id, scopes=Scopes.parse(SCOPES), family=os.urandom(12).hex(),
                    lifetime=3600, refresh_lifetime=0, announce=lambda _: None,
                )  # fmt: skip
                handles.setdefault(one.id, []).append(issued.handle.reveal())
    await redis.aclose()
    return handles


async def _check(place: Field) -> None:
    """The same work is done: bodies whole and rewritten, what is not allowed refused, the raw token needed."""
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:

        async def status(url: str, token: str) -> int:
            answer = await http.get(url, headers={"Authorization": f"Bearer {token}"})
            return answer.status_code

        handle = place.handles["plain"][0]
        assert await status(place.url(READ), handle) == 200, (place.state / "log").read_text()
        assert await status(place.url(READ), handle[:-1] + ("A" if handle[-1] != "A" else "B")) == 401
        assert await status(place.url(READ), place.handles["tls"][0]) == 401
        assert await status(place.url("Patient/another"), handle) == 403
        assert await status(f"http://127.0.0.1:{place.ehr[0]}/fhir/{READ}", handle) == 401
        bundle = await http.get(place.url(SEARCH), headers={"Authorization": f"Bearer {handle}"})
        assert str(place.ehr[0]) not in bundle.text
        assert bundle.text.count(f"127.0.0.1:{place.port}/fhir/plain/Observation") == 51
        secure = await http.get(place.url(READ, "tls"), headers={"Authorization": f"Bearer {place.handles['tls'][0]}"})
        assert len(secure.content) == (place.state / f"ehr/files/fhir/{READ}.json").stat().st_size


def _audited(place: Field) -> int:
    return (place.state / "state/audit.jsonl").read_bytes().count(b"\n")


def _reads(place: Field) -> int:
    total = 0
    for name, path, kind in (("3k", READ, "plain"), ("30k", SEARCH, "plain"), ("tls_3k", READ, "tls")):
        tls, results = kind == "tls", place.results
        with limit(place.state / f"limit-{name}", place.ehr[tls], TOKEN, tls=tls) as (pid, port):

            def bare(connections: int, pid: int = pid, port: int = port, path: str = path) -> Load:
                return load(f"http://127.0.0.1:{port}/fhir/{path}", pid, connections=connections, seconds=SECONDS)

            def through(connections: int, path: str = path, kind: str = kind) -> Load:
                return load(
                    place.url(path, kind), place.broker,
                    connections=connections, seconds=SECONDS, script=place.scripts[kind],
                )  # fmt: skip

            for connections in (32, 1, 256) if name == "3k" else (32,):
                rounds = [_paired(bare, through, connections) for _ in range(place.rounds)]
                total += sum(one[1].requests for one in rounds)
                ratio = median((one[0].cpu_us + one[2].cpu_us) / 2 / one[1].cpu_us for one in rounds)
                noise = median(one[0].cpu_us / one[2].cpu_us for one in rounds)
                suffix = "" if connections == 32 else f"_c{connections}"
                results[f"broker_vs_nginx_{name}{suffix}"] = ratio
                results[f"nginx_vs_itself_{name}{suffix}"] = noise
                results[f"broker_us_{name}{suffix}"] = median(one[1].cpu_us for one in rounds)
                results[f"nginx_us_{name}{suffix}"] = median(one[0].cpu_us for one in rounds)
                if connections == 1:
                    results["p50_c1_vs_nginx"] = median(one[1].p50_ms / one[0].p50_ms for one in rounds)
                if connections == 32:
                    results[f"p99_c32_vs_nginx{'' if name == '3k' else '_' + name}"] = median(
                        one[1].p99_ms / one[0].p99_ms for one in rounds
                    )
            if name == "3k":
                results["naive_vs_nginx_3k"] = _naive(place, bare)
    return total


def _paired(bare: Callable[[int], Load], through: Callable[[int], Load], connections: int) -> tuple[Load, Load, Load]:
    return bare(connections), through(connections), bare(connections)


def _naive(place: Field, bare: Callable[[int], Load]) -> float:
    with _naive_server(place) as (pid, port):
        url = f"http://127.0.0.1:{port}/fhir/{READ}"
        taken = load(url, pid, connections=32, seconds=SECONDS, script=place.scripts["plain"])
    return bare(32).cpu_us / taken.cpu_us


@contextmanager
def _naive_server(place: Field) -> Iterator[tuple[int, int]]:
    port = free_port()
    environ = {
        **os.environ,
        "EHR": f"http://127.0.0.1:{place.ehr[0]}/fhir",
        "TOKEN": TOKEN,
        "PORT": str(port),
        "STORE": place.store,
    }
    with on_core(PROXY_CORE, [sys.executable, "-m", "tests.bench.naive"], env=environ) as pid:
        await_port(port)
        yield pid, port


def _streams(place: Field) -> None:
    """20 MB and 1 GB, timed; and to eight readers that are slow, whose answers must not pile up here."""
    handle = place.handles["plain"][0]
    with limit(place.state / "limit-stream", place.ehr[0], TOKEN) as (_, port):
        for name, path, times in (("20mb", FILE, 9), ("1gb", STREAM, 3)):
            bare = median(_megabytes_per_s(f"http://127.0.0.1:{port}/fhir/{path}", "") for _ in range(times))
            through = median(_megabytes_per_s(place.url(path), handle) for _ in range(times))
            place.results[f"stream_{name}_vs_nginx"] = through / bare
    before = resident_mb(place.broker)
    place.results["stream_rss_growth_mb"] = max(_slowly(place, handle)) - before


async def _revocation(place: Field) -> dict[str, float]:
    ports = [place.port]
    for number in range(3):
        port = free_port()
        place.serve(port, f"state-{number}")
        ports.append(port)
    return await revocation(ports, place.handles["plain"], path=READ, client_id="bench")


def _megabytes_per_s(url: str, handle: str) -> float:
    told = "%{http_code} %{speed_download}"
    curl = ["curl", "-s", "-o", os.devnull, "-w", told, "-H", f"Authorization: Bearer {handle}", url]
    pinned = ["taskset", "-c", str(OTHER_CORE), *curl]
    said = subprocess.run(pinned, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    assert said[0] == "200", said
    return float(said[1]) / 1e6


def _slowly(place: Field, handle: str) -> Iterator[float]:
    """Yield the broker's memory while eight readers take 64 KB each at a time."""
    head = f"GET /fhir/plain/{STREAM} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {handle}\r\n\r\n".encode()
    with ExitStack() as stack:
        readers = [stack.enter_context(socket.create_connection(("127.0.0.1", place.port))) for _ in range(8)]
        for reader in readers:
            reader.sendall(head)
        for _ in range(50):
            for reader in readers:
                assert reader.recv(65536)
            time.sleep(0.02)
            yield resident_mb(place.broker)


if __name__ == "__main__":
    print(asyncio.run(measure()))
