"""Ask Azure Key Vault. Azure's client blocks, so it runs in threads; it is imported at the first call alone."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final

from broker.errors import ConfigurationError, KeyRefused, KeyUnavailable

SECONDS: Final = 10.0
"""How long an answer may take, retries included."""
_CONNECT_SECONDS: Final = 2
_READ_SECONDS: Final = 3
_RETRIES: Final = 2
_REFUSALS: Final = frozenset({400, 403, 404, 409})


class AzureRefused(KeyRefused):
    """Key Vault says no; `answered` is the status."""

    def __init__(self, detail: str, answered: int) -> None:
        super().__init__(detail)
        self.answered = answered


class AzureServer:
    """One vault. Who we are, Azure's client finds as it always does (`DefaultAzureCredential`)."""

    def __init__(self, url: str, make: Callable[[str], Any] | None = None) -> None:
        self._url = url
        self._make = make or _client
        self._made: Any = None
        self._making = threading.Lock()

    def __repr__(self) -> str:
        return f"AzureServer({self._url})"

    async def ask(self, operation: str, name: str, **arguments: Any) -> Any:
        """Call one operation of the key client. Raises `AzureRefused`, `KeyUnavailable`, `ConfigurationError`."""
        return await self._run(operation, lambda client: getattr(client, operation)(name, **arguments))

    async def wrap(self, name: str, version: str, key: bytes) -> bytes:
        """Wrap with the public half of one version, RSA-OAEP-256. Raises like `ask`."""
        return bytes((await self._use("wrap_key", name, version, "RSA-OAEP-256", key)).encrypted_key)

    async def unwrap(self, name: str, version: str, wrapped: bytes) -> bytes:
        """Unwrap with one version. Raises like `ask`."""
        return bytes((await self._use("unwrap_key", name, version, "RSA-OAEP-256", wrapped)).key)

    async def sign(self, name: str, version: str, digest: bytes) -> bytes:
        """Sign a SHA-256 digest with one version, ES256. Raises like `ask`."""
        return bytes((await self._use("sign", name, version, "ES256", digest)).signature)

    async def verify(self, name: str, version: str, digest: bytes, signature: bytes) -> bool:
        """Tell whether that version signed the digest. Raises like `ask`."""
        return (await self._use("verify", name, version, "ES256", digest, signature)).is_valid is True

    async def _use(self, operation: str, name: str, version: str, algorithm: str, *arguments: bytes) -> Any:
        def use(client: Any) -> Any:
            from azure.keyvault.keys.crypto import KeyWrapAlgorithm, SignatureAlgorithm  # noqa: PLC0415  # an extra

            kind = SignatureAlgorithm if algorithm == "ES256" else KeyWrapAlgorithm
            key = client.get_cryptography_client(name, key_version=version)
            return getattr(key, operation)(kind(algorithm), *arguments)

        return await self._run(operation, use)

    async def delete(self, name: str) -> Any:
        """Delete a key, and return what Azure says of it. Raises like `ask`."""
        return await self._run("delete", lambda client: client.begin_delete_key(name).result())

    async def close(self) -> None:
        """Close connections."""
        if self._made is not None:
            await asyncio.to_thread(self._made.close)

    async def _run(self, operation: str, call: Callable[[Any], Any]) -> Any:
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.to_thread(self._call, operation, call)
        except TimeoutError:
            raise KeyUnavailable(f"Key Vault did not answer within {SECONDS:g} s") from None

    def _call(self, operation: str, call: Callable[[Any], Any]) -> Any:
        with self._making:
            self._made = self._made or self._make(self._url)
        from azure.core.exceptions import AzureError, HttpResponseError  # noqa: PLC0415  # an extra, and slow to import

        try:
            return call(self._made)
        except HttpResponseError as error:
            status = error.status_code or 0
            if status in _REFUSALS:
                raise AzureRefused(f"Key Vault refused {operation}: {status}", status) from None
            raise KeyUnavailable(f"Key Vault could not {operation}: {status}") from None
        except AzureError as error:
            raise KeyUnavailable(f"Key Vault does not answer {operation} ({type(error).__name__})") from None


def _client(url: str) -> Any:
    try:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415  # an extra, and slow to import
        from azure.keyvault.keys import KeyClient  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "BROKER_KMS=azurekv needs azure-keyvault-keys. Fix: pip install 'smart-token-broker[azure]'"
        ) from None
    return KeyClient(url, DefaultAzureCredential(), **CLIENT_OPTIONS)


CLIENT_OPTIONS: Final[dict[str, Any]] = {
    "connection_timeout": _CONNECT_SECONDS,
    "read_timeout": _READ_SECONDS,
    "retry_total": _RETRIES,
    "retry_backoff_factor": 0.2,
}
