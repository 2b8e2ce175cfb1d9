"""Key-encryption keys at Google Cloud KMS: one key for each domain, in one key ring.

A key of Google's cannot be deleted, only its versions; so a destroyed domain's key stays behind, without any.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from broker.clock import Clock
from broker.errors import ConfigurationError, KeyRefused, KeyUnavailable, SealBroken
from broker.kms.names import bound, hashed, require_kind
from broker.vault.kek import Destroyed, Domain, WrappedKey

SECONDS: Final = 5.0
_LONGEST_NAME: Final = 63
_REFUSALS: Final = frozenset({"PermissionDenied", "Forbidden", "NotFound", "FailedPrecondition"})


class GoogleRefused(KeyRefused):
    """Google says no; `error` is the name of its exception."""

    def __init__(self, detail: str, error: str) -> None:
        super().__init__(detail)
        self.error = error


class GoogleServer:
    """KMS, as Google's client reaches it. Who we are, it finds as it always does (application default credentials)."""

    def __init__(self, make: Callable[[], Any] | None = None) -> None:
        self._make = make or _client
        self._made: Any = None
        self._making = threading.Lock()

    async def ask(self, operation: str, **request: Any) -> Any:
        """Call one operation. Raises `GoogleRefused`, `KeyUnavailable`, `ConfigurationError`."""
        try:
            async with asyncio.timeout(2 * SECONDS):
                return await asyncio.to_thread(self._call, operation, request)
        except TimeoutError:
            raise KeyUnavailable(f"Google Cloud KMS did not answer within {2 * SECONDS:g} s") from None

    async def close(self) -> None:
        """Close connections."""
        if self._made is not None:
            await asyncio.to_thread(self._made.transport.close)

    def _call(self, operation: str, request: dict[str, Any]) -> Any:
        with self._making:
            self._made = self._made or self._make()
        from google.api_core.exceptions import GoogleAPIError  # noqa: PLC0415  # an extra, and slow to import
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415

        try:
            answered = getattr(self._made, operation)(request=request, timeout=SECONDS, retry=None)
            return list(answered) if operation.startswith("list_") else answered
        except (GoogleAPIError, GoogleAuthError) as error:
            code = type(error).__name__
            if code in _REFUSALS or code in {"InvalidArgument", "AlreadyExists"}:
                raise GoogleRefused(f"Google Cloud KMS refused {operation}: {code}", code) from None
            raise KeyUnavailable(f"Google Cloud KMS could not {operation}: {code}") from None


@dataclass(frozen=True, slots=True)
class GoogleKeys:
    """Wraps with Google Cloud KMS. Versions are named as Google numbers them."""

    server: GoogleServer
    ring: str
    """`projects/P/locations/L/keyRings/R`."""
    prefix: str
    clock: Clock
    may_create: bool = True

    async def wrap(self, domain: Domain, key: bytes, bound_to: bytes) -> WrappedKey:
        """Wrap under the primary version, making the domain's key first if there is none and that is allowed."""
        await self.current(domain)
        answered = await self.server.ask(
            "encrypt",
            name=self._path(domain),
            plaintext=key,
            additional_authenticated_data=bound(domain, bound_to),
        )
        return WrappedKey(self._kek(answered.name), bytes(answered.ciphertext))

    async def unwrap(self, domain: Domain, wrapped: WrappedKey, bound_to: bytes) -> bytes:
        """Unwrap with the domain's key. Raises `SealBroken`, `KeyUnavailable`, `KeyRefused`."""
        require_kind("gcpkms", wrapped)
        try:
            answered = await self.server.ask(
                "decrypt",
                name=self._path(domain),
                ciphertext=wrapped.blob,
                additional_authenticated_data=bound(domain, bound_to),
            )
        except GoogleRefused as refused:
            if refused.error == "InvalidArgument":
                raise SealBroken(f"a key of {domain} does not unwrap in its place") from None
            raise
        return bytes(answered.plaintext)

    async def current(self, domain: Domain) -> str:
        """Return `gcpkms:KEY:VERSION`, making the domain's key first if there is none and that is allowed."""
        primary = await self._primary(domain)
        return self._kek(primary) if primary else await self._create(domain)

    async def rotate(self, domain: Domain) -> str:
        """Make a new version, and make it the primary one."""
        await self.current(domain)
        return await self._new_version(domain)

    async def destroy(self, domain: Domain) -> tuple[Destroyed, ...]:
        """Destroy every version; Google keeps them for the key's grace time, 30 days unless it was made otherwise."""
        path = self._path(domain)
        gone: list[Destroyed] = []
        try:
            versions = await self.server.ask("list_crypto_key_versions", parent=path)
        except GoogleRefused as refused:
            if refused.error != "NotFound":
                raise
            versions = []
        for version in versions:
            is_usable = version.state.name in {"ENABLED", "DISABLED"}
            ended = await self.server.ask("destroy_crypto_key_version", name=version.name) if is_usable else version
            if gone_at := ended.destroy_time or ended.destroy_event_time:
                gone.append(Destroyed(self._kek(version.name), gone_at.timestamp()))
        return tuple(gone) or (Destroyed(f"gcpkms:{path.rpartition('/')[2]}", self.clock()),)

    async def check(self) -> None:
        """Raises `KeyUnavailable` unless the key ring is there for us."""
        await self.server.ask("get_key_ring", name=self.ring)

    async def close(self) -> None:
        """Close connections."""
        await self.server.close()

    def _path(self, domain: Domain) -> str:
        return f"{self.ring}/cryptoKeys/{hashed(self.prefix, domain, _LONGEST_NAME)}"

    def _kek(self, version: str) -> str:
        *_, key, _, number = version.split("/")
        return f"gcpkms:{key}:{number}"

    async def _primary(self, domain: Domain) -> str | None:
        """Return the primary version's path; None where there is no key, or it has lost all its versions."""
        try:
            primary = (await self.server.ask("get_crypto_key", name=self._path(domain))).primary
        except GoogleRefused as refused:
            if refused.error == "NotFound":
                return None
            raise
        is_over = not primary.name or primary.state.name in {"DESTROYED", "DESTROY_SCHEDULED"}
        return None if is_over else str(primary.name)

    async def _create(self, domain: Domain) -> str:
        path = self._path(domain)
        name = path.rpartition("/")[2]
        if not self.may_create:
            raise KeyRefused(f"Google Cloud KMS has no key {name}, and create=no. Fix: make one, or drop create=no")
        try:
            await self.server.ask(
                "create_crypto_key",
                parent=self.ring,
                crypto_key_id=name,
                crypto_key={"purpose": "ENCRYPT_DECRYPT", "labels": {"smart-token-broker": self.prefix}},
            )
        except GoogleRefused as refused:
            if refused.error != "AlreadyExists":
                raise
        primary = await self._primary(domain)
        return self._kek(primary) if primary else await self._new_version(domain)

    async def _new_version(self, domain: Domain) -> str:
        path = self._path(domain)
        made = await self.server.ask("create_crypto_key_version", parent=path, crypto_key_version={})
        number = made.name.rpartition("/")[2]
        await self.server.ask("update_crypto_key_primary_version", name=path, crypto_key_version_id=number)
        return self._kek(made.name)


def _client() -> Any:
    try:
        from google.cloud import kms_v1  # noqa: PLC0415  # an extra, and slow to import
    except ImportError:
        raise ConfigurationError(
            "BROKER_KMS=gcpkms needs google-cloud-kms. Fix: pip install 'smart-token-broker[gcp]'"
        ) from None
    return kms_v1.KeyManagementServiceClient()
