"""Ask the Transit engine of OpenBao or Vault, over the broker's own way out."""

import json
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from broker.egress import Answer, Egress
from broker.errors import ConfigurationError, EhrError, KeyRefused, KeyUnavailable
from broker.secret import Secret

SECONDS: Final = 5.0
"""How long an answer may take."""
_ANSWER_BYTES: Final = 1 << 18


class KeyMissing(KeyRefused):
    """There is no key of that name."""


class TransitRejected(KeyRefused):
    """The server says that what it was asked cannot be done (400); `reason` is its text, which quotes no input."""

    def __init__(self, detail: str, reason: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TransitServer:
    """Where the engine is mounted, and who we are there."""

    mount: str
    """URL of the mount, such as `https://bao.internal:8200/v1/transit`."""
    read_token: Callable[[], Secret]
    """Asked before each request: an agent writes a new token into the file before the old one ends."""
    egress: Egress
    namespace: str | None = None

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the `data` of an answer.

        Raises `KeyMissing`, `TransitRejected`, `KeyRefused`, and `KeyUnavailable` when there was no usable answer or
        our token is not accepted, which says nothing about the key.
        """
        answer = await self._send(method, f"{self.mount}/{path}", body)
        if answer.status in {200, 204}:
            return _data(answer)
        if answer.status == 404:
            raise KeyMissing(f"Transit has no {path}")
        if answer.status == 403:
            await self._require_token()
            raise KeyRefused(f"Transit does not let us {method} {path}. Fix: docs/deploy/openbao-policy.hcl")
        if answer.status == 400:
            reason = _reason(answer)
            raise TransitRejected(f"Transit refused {method} {path}: {reason}", reason)
        raise KeyUnavailable(f"Transit answered {answer.status} ({_reason(answer)})")

    async def delete_key(self, name: str) -> None:
        """Delete a key with all its versions, at once; one that is not there is no error."""
        with suppress(KeyMissing):
            await self.ask("GET", f"keys/{name}")
            await self.ask("POST", f"keys/{name}/config", {"deletion_allowed": True})
            await self.ask("DELETE", f"keys/{name}")

    async def check(self) -> None:
        """Raises `KeyUnavailable` unless the server is unsealed and takes our token."""
        await self._require_token()

    async def close(self) -> None:
        """Close connections."""
        await self.egress.close()

    async def _require_token(self) -> None:
        base = self.mount[: self.mount.index("/v1/")]
        answer = await self._send("GET", f"{base}/v1/auth/token/lookup-self", None)
        if answer.status == 403:
            raise KeyUnavailable("Transit does not accept our token. Fix: a new one in BROKER_KMS_TOKEN_FILE")
        if answer.status != 200:
            raise KeyUnavailable(f"Transit answered {answer.status} ({_reason(answer)})")

    async def _send(self, method: str, url: str, body: Mapping[str, Any] | None) -> Answer:
        headers = {"X-Vault-Token": self.read_token().reveal(), "X-Vault-Request": "true"}
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        content = None if body is None else json.dumps(body).encode()
        try:
            return await self.egress.fetch(
                method, url, headers=headers, content=content, timeout=SECONDS, limit=_ANSWER_BYTES
            )
        except EhrError as error:
            raise KeyUnavailable(f"Transit does not answer: {error.detail}") from None


def transit_egress(mount: str, ca_file: Path | None = None) -> Egress:
    """Return a way out that leads to the host of `mount`, in whatever network, and to no other private address.

    Plain http to this machine's loopback is what the operator wrote, for an agent's listener. Raises
    `ConfigurationError`.
    """
    try:
        certificates = None if ca_file is None else ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"BROKER_KMS_CA_FILE={ca_file} cannot be read ({type(error).__name__})") from None
    parts = urlsplit(mount)
    return Egress(
        allow_loopback_http=parts.scheme == "http",
        allow_private_hosts=[parts.hostname or ""],
        certificates=certificates,
    )


def token_reader(token: Secret | None, file: Path | None) -> Callable[[], Secret]:
    """Return what reads the token anew each time; it raises `KeyUnavailable`."""

    def read() -> Secret:
        if token is not None:
            return token
        try:
            text = file.read_text(encoding="ascii").strip() if file else ""
        except (OSError, UnicodeDecodeError) as error:
            raise KeyUnavailable(f"BROKER_KMS_TOKEN_FILE cannot be read ({type(error).__name__})") from None
        if not text:
            raise KeyUnavailable("BROKER_KMS_TOKEN_FILE is empty")
        return Secret(text)

    return read


def _data(answer: Answer) -> Any:
    if not answer.body:
        return {}
    try:
        return json.loads(answer.body).get("data") or {}
    except (ValueError, AttributeError):
        raise KeyUnavailable("Transit answered what is not JSON") from None


def _reason(answer: Answer) -> str:
    try:
        return "; ".join(map(str, json.loads(answer.body)["errors"]))[:200] or "no reason given"
    except (ValueError, KeyError, TypeError):
        return "no reason given"
