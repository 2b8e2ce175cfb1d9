"""The public keys of apps: inline in `broker.toml`, or fetched from their JWK Set URL (CA-10)."""

from typing import Final

from joserfc.jwk import KeySet

from broker.apps import App
from broker.clock import Clock
from broker.egress import Egress
from broker.ehr.discovery import parse_json_object
from broker.ehr.id_token import parse_jwks
from broker.errors import BrokerError, EhrMisbehaved, InvalidClient
from broker.single_flight import SingleFlight

CACHE_SECONDS: Final = 300.0
COOLDOWN_SECONDS: Final = 10.0
"""Not more often than this is an app's URL asked, however many bad assertions name the app."""
_TIMEOUT_SECONDS: Final = 5.0


class AppKeys:
    """Finds an app's JWK Set. A set that was good stays until a newer good one replaces it or it is too old."""

    def __init__(self, egress: Egress, clock: Clock) -> None:
        self._egress = egress
        self._clock = clock
        self._inline: dict[str, KeySet] = {}
        self._fetched: dict[str, tuple[float, KeySet]] = {}
        self._tried: dict[str, float] = {}
        self._fetching: SingleFlight[KeySet] = SingleFlight()

    async def current(self, app: App) -> KeySet:
        """Return the app's keys. Raises `InvalidClient` when they cannot be read."""
        if app.settings.jwks_uri is None:
            return self._read_inline(app)
        at, key_set = self._fetched.get(app.id, (float("-inf"), None))
        if key_set is not None and self._clock() < at + CACHE_SECONDS:
            return key_set
        if not self._may_ask(app):
            raise InvalidClient("the app's JWK Set could not be read a moment ago")
        return await self._shared_fetch(app, app.settings.jwks_uri)

    async def newer(self, app: App) -> KeySet | None:
        """Fetch again after an assertion did not verify: an unknown `kid` may be a new key. None if that is no use."""
        if app.settings.jwks_uri is None or not self._may_ask(app):
            return None
        return await self._shared_fetch(app, app.settings.jwks_uri)

    def _read_inline(self, app: App) -> KeySet:
        if app.id not in self._inline:
            try:
                self._inline[app.id] = parse_jwks(app.settings.jwks)
            except EhrMisbehaved:
                raise InvalidClient("jwks of this app in broker.toml has no usable key") from None
        return self._inline[app.id]

    def _may_ask(self, app: App) -> bool:
        return self._clock() >= self._tried.get(app.id, float("-inf")) + COOLDOWN_SECONDS

    async def _shared_fetch(self, app: App, url: str) -> KeySet:
        return await self._fetching.run(app.id, lambda: self._fetch(app, url))

    async def _fetch(self, app: App, url: str) -> KeySet:
        try:
            answer = await self._egress.fetch(
                "GET", url, headers={"Accept": "application/json"}, timeout=_TIMEOUT_SECONDS
            )
            key_set = parse_jwks(parse_json_object(answer.body) if answer.status == 200 else None)
        except BrokerError as error:
            raise InvalidClient(f"the app's JWK Set could not be read: {error.detail}") from None
        finally:
            self._tried[app.id] = self._clock()
        self._fetched[app.id] = (self._clock(), key_set)
        return key_set
