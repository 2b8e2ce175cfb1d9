"""What a run left behind in every sink, and what must not be found there."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qsl, quote, urlsplit

import httpx2
from joserfc.jwk import ECKey, RSAKey

from broker.audit import STREAM_KEY
from broker.credentials import KeyedHash
from broker.errors import BrokerError
from broker.keys.identity import IdentityKey
from broker.keys.ring import RingKey
from broker.keys.signing import SigningKeys
from broker.launches import Launch, Launches
from broker.secret import Secret
from tests.stage import App, BrokerStage
from tests.stage.app import ORIGIN

LEGITIMATE = "·"
"""Stands in an answer where a credential is handed to the one it is for."""
_STEP = re.compile(r'((?:href|data-key)="|name="(?:code|state|launch)" value=")[^"]*')
"""What a page that goes on by itself gives the tab to keep, and to bring to where it goes."""


@dataclass
class Evidence:
    """Secrets and personal data by what they are, and the text of each sink."""

    secrets: dict[str, list[str]] = field(default_factory=dict)
    phi: list[str] = field(default_factory=list)
    sinks: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    reprs: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, kind: str, *values: str) -> None:
        """Note secrets of one kind."""
        known = self.secrets.setdefault(kind, [])
        known += [value for value in values if value and value not in known]

    def add_key(self, kind: str, key: bytes) -> None:
        """Note a key in every spelling it might leak in."""
        self.add(kind, key.hex(), key.decode("latin-1"), base64.b64encode(key).decode().rstrip("="))
        self.add(kind, base64.urlsafe_b64encode(key).decode().rstrip("="))

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        sinks = self.sinks | {name: "\n".join(getattr(self, name)) for name in ("answers", "reprs", "errors")}
        return {"secrets": self.secrets, "phi": self.phi, "sinks": sinks}


@contextmanager
def watched(evidence: Evidence) -> Iterator[None]:
    """Note every secret and key that the broker makes for itself, every launch's repr, every error's text."""
    make, take, fail = Launches.secret, Launches.take, BrokerError.__init__
    load, keep, load_identity = SigningKeys._load, KeyedHash.__init__, IdentityKey._load

    def secret(self: Launches) -> Secret:
        made = make(self)
        evidence.add("state, nonce, verifier or cookie", made.reveal())
        return made

    async def take_and_show(self: Launches, state: str) -> Launch:
        launch = await take(self, state)
        evidence.reprs += [repr(launch), repr(launch.app_request), str(launch)]
        return launch

    def fail_and_show(self: BrokerError, detail: str, *, public: str | None = None) -> None:
        fail(self, detail, public=public)
        evidence.errors += [str(self), repr(self), self.detail, self.public, repr(self.args)]

    def load_and_note(self: SigningKeys, ring_key: RingKey) -> ECKey | RSAKey:
        key = load(self, ring_key)
        evidence.add("signing key", str(key.as_dict(private=True)["d"]), "PRIVATE KEY")
        return key

    async def load_identity_and_note(self: IdentityKey) -> RSAKey:
        key = await load_identity(self)
        evidence.add("signing key", str(key.as_dict(private=True)["d"]), "PRIVATE KEY")
        return key

    def keep_and_note(self: KeyedHash, key: bytes) -> None:
        evidence.add_key("key of the keyed hashes", key)
        keep(self, key)

    with (
        patch.object(SigningKeys, "_load", load_and_note),
        patch.object(IdentityKey, "_load", load_identity_and_note),
        patch.object(KeyedHash, "__init__", keep_and_note),
        patch.object(Launches, "secret", secret),
        patch.object(Launches, "take", take_and_show),
        patch.object(BrokerError, "__init__", fail_and_show),
    ):
        yield


@asynccontextmanager
async def listening(app: App, evidence: Evidence, public_url: str) -> AsyncIterator[App]:
    """Note every answer that the broker gives to this app and its browser."""

    async def note(answer: httpx2.Response) -> None:
        if str(answer.url).startswith(public_url):
            body = b""
            try:
                body = await answer.aread()
            finally:
                evidence.answers.append(_text_of(answer, body.decode(), evidence))

    for client in (app.http, app.browser.http):
        client.event_hooks = {"response": [note]}
    try:
        yield app
    finally:
        await app.close()


def _text_of(answer: httpx2.Response, body: str, evidence: Evidence) -> str:
    """Return the answer's text; what it rightly hands over is noted as a secret and taken out of this one place."""
    headers = [_handed_over(name, value, evidence) for name, value in answer.headers.multi_items()]
    if answer.url.path == "/oauth/token" and answer.status_code == 200:
        for kind in ("access_token", "refresh_token"):
            if given := answer.json().get(kind):
                evidence.add("handle" if kind == "access_token" else "refresh handle", given)
                body = body.replace(f'"{kind}":{json.dumps(given)}', f'"{kind}":"{LEGITIMATE}"', 1)
        own_issuer = f"http://{answer.url.netloc.decode()}"
        if (id_token := answer.json().get("id_token")) and _claims(id_token)["iss"] == own_issuer:
            evidence.add("id_token of the broker's own", id_token)
            body = body.replace(json.dumps(id_token), f'"{LEGITIMATE}"', 1)
    if answer.status_code == 200 and ' id="next"' in body:
        evidence.add("tab key", *re.findall(r'data-key="([^"]+)"', body))
        body = _STEP.sub(rf"\1{LEGITIMATE}", body)
    return "\n".join([str(answer.status_code), *headers, body])


def _claims(token: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==")))


def _handed_over(name: str, value: str, evidence: Evidence) -> str:
    if name == "set-cookie":
        cookie = value.partition("=")[2].partition(";")[0]
        evidence.add("cookie", cookie)
        value = value.replace(f"={cookie};", f"={LEGITIMATE};", 1)
    elif name == "location" and value.startswith("http"):
        rightful = (
            ("code", "launch", "state") if value.startswith(ORIGIN) else ("state", "nonce", "launch", "request_uri")
        )
        for parameter, given in parse_qsl(urlsplit(value).query):
            if parameter in rightful:
                evidence.add("code" if parameter == "code" else f"{parameter} in a redirect", given)
                for spelled in (given, quote(given, safe="")):
                    value = value.replace(f"{parameter}={spelled}", f"{parameter}={LEGITIMATE}", 1)
    return f"{name}: {value}"


async def redis_text(redis: Any) -> str:
    """Return every key and value, of every type, byte for byte as Latin-1."""
    lines: list[bytes] = []
    async for key in redis.scan_iter(count=500):
        match await redis.type(key):
            case b"string":
                value: Iterable[Any] = [await redis.get(key)]
            case b"hash":
                value = [part for pair in (await redis.hgetall(key)).items() for part in pair]
            case b"zset":
                value = await redis.zrange(key, 0, -1)
            case b"stream":
                value = [part for _, fields in await redis.xrange(key) for pair in fields.items() for part in pair]
            case other:
                raise AssertionError(f"a type that this dump does not know: {other!r}")
        lines.append(b"\n".join([key, *value]))
    return b"\n".join(lines).decode("latin-1")


async def stage_sinks(stage: BrokerStage) -> dict[str, str]:
    """Return what this broker has left in its own sinks, once the audit trail's copy has caught up."""
    redis: Any = stage.redis
    while await redis.xlen(STREAM_KEY) < len(stage.audit_lines()):  # noqa: ASYNC110  # the shipper says it in no other way
        await asyncio.sleep(0.01)
    stream = [fields[b"record"].decode() for _, fields in await redis.xrange(STREAM_KEY)]
    return {
        "audit_file": "\n".join(stage.audit_lines()),
        "audit_stream": "\n".join(stream),
        "redis": await redis_text(redis),
    }
