"""The programs that a proxy is measured between and against: nginx as the EHR, nginx as the limit, wrk as the apps."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROXY_CORE, OTHER_CORE = 0, 1
TICK: Final = os.sysconf("SC_CLK_TCK")
_SERVER: Final = """
user root; daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log crit;
events {{ worker_connections 2048; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; keepalive_timeout 300s;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi; proxy_max_temp_file_size 0;
  {body}
}}
"""
_EHR: Final = """
  types {{ application/fhir+json json; }} default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port}; listen 127.0.0.1:{tls_port} ssl;
    ssl_certificate {home}/cert.pem; ssl_certificate_key {home}/cert.pem;
    root {home}/files;
    add_header X-Powered-By bench; add_header Cache-Control no-store; add_header Vary Accept;
    location = /fhir/.well-known/smart-configuration {{ default_type application/json; return 200 '{metadata}'; }}
    location = /token {{ default_type application/json; return 200 '{answer}'; }}
    location / {{ if ($http_authorization != "Bearer {token}") {{ return 401; }} try_files $uri $uri.json =404; }}
  }}
"""
_LIMIT: Final = """
  upstream ehr {{ server 127.0.0.1:{to}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {scheme}://ehr/; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {token}"; proxy_ssl_session_reuse on;
    }}
  }}
"""
_LUA: Final = """
local handles = {{ {handles} }}
local next_one = 0
function request()
  next_one = next_one % #handles + 1
  return wrk.format("GET", nil, {{ ["Authorization"] = "Bearer " .. handles[next_one] }})
end
"""


def missing() -> list[str]:
    """Return the programs that are not there."""
    return [name for name in ("nginx", "wrk", "taskset") if shutil.which(name) is None]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def on_core(core: int, command: Sequence[str], **options: object) -> Iterator[int]:
    """Run a program on one core until the block ends; gives its process id."""
    pinned = ["taskset", "-c", str(core), *command]
    process = subprocess.Popen(pinned, **options)  # type: ignore[call-overload]  # subprocess's own
    try:
        yield int(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def await_port(port: int) -> None:
    """Wait until somebody listens."""
    give_up = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)
        else:
            return


@contextmanager
def _nginx(home: Path, core: int, port: int, body: str) -> Iterator[int]:
    conf = home / "nginx.conf"
    conf.write_text(_SERVER.format(home=home, body=body))
    with on_core(core, ["nginx", "-e", str(home / "error.log"), "-p", str(home), "-c", str(conf)]) as pid:
        await_port(port)
        yield pid


@contextmanager
def ehr(home: Path, token: str, *, answer: str) -> Iterator[tuple[int, int]]:
    """A FHIR server that gives files to whoever shows the raw token; gives its ports, without and with TLS.

    `answer` is what its token endpoint says to everybody.
    """
    port, tls_port = free_port(), free_port()
    metadata = json.dumps(
        {
            "token_endpoint": f"http://127.0.0.1:{port}/token",
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
            "capabilities": ["client-confidential-asymmetric", "permission-v2"],
        }
    )
    body = _EHR.format(home=home, port=port, tls_port=tls_port, token=token, metadata=metadata, answer=answer)
    with _nginx(home, OTHER_CORE, port, body):
        yield port, tls_port


@contextmanager
def limit(home: Path, to: int, token: str, *, tls: bool = False) -> Iterator[tuple[int, int]]:
    """The limit: nginx that adds one header and checks nothing; gives process id and port."""
    home.mkdir()
    port, scheme = free_port(), "https" if tls else "http"
    with _nginx(home, PROXY_CORE, port, _LIMIT.format(port=port, to=to, token=token, scheme=scheme)) as pid:
        yield pid, port


def _family(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            yield from _family(int(child))


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and its children have taken."""
    ticks = 0
    for one in _family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def resident_mb(pid: int) -> float:
    """Return what a process and its children hold in memory."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in _family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Load:
    """What a proxy took for a load."""

    requests: int
    cpu_us: float
    """Processor time for each completed request."""
    p50_ms: float
    p99_ms: float


def load(url: str, pid: int, *, connections: int, seconds: int, script: Path | None = None) -> Load:
    """Send requests for so long and see what they cost the process. Fails if one fails."""
    before = cpu_seconds(pid)
    lua = ["-s", str(script)] if script is not None else []
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *lua, url]
    pinned = ["taskset", "-c", str(OTHER_CORE), *wrk]
    said = subprocess.run(pinned, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    taken = cpu_seconds(pid) - before
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    (count,) = re.findall(r"(\d+) requests in", said)
    p50, p99 = (_milliseconds(said, share) for share in ("50%", "99%"))
    return Load(int(count), taken / int(count) * 1e6, p50, p99)


def _milliseconds(said: str, share: str) -> float:
    ((number, unit),) = re.findall(rf"^\s+{share}\s+([\d.]+)(us|ms|s) *$", said, re.MULTILINE)
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def rotation(handles: Sequence[str], folder: Path) -> Path:
    """Return a script for wrk that takes the handles in turn."""
    path = folder / "handles.lua"
    path.write_text(_LUA.format(handles=", ".join(f'"{handle}"' for handle in handles)))
    return path
