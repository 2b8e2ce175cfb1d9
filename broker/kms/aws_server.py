"""Ask AWS KMS. boto3 blocks, so it runs in threads; it is imported at the first call alone."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final

from broker.errors import ConfigurationError, KeyRefused, KeyUnavailable

SECONDS: Final = 10.0
"""How long an answer may take, retries included."""
_CONNECT_SECONDS: Final = 2.0
_READ_SECONDS: Final = 3.0
_ATTEMPTS: Final = 3
_REFUSALS: Final = frozenset({
    "AccessDeniedException", "DisabledException", "IncorrectKeyException", "InvalidCiphertextException",
    "InvalidKeyUsageException", "KMSInvalidStateException", "NotFoundException",
})  # fmt: skip


class AwsRefused(KeyRefused):
    """AWS KMS says no; `error` is its word for it."""

    def __init__(self, detail: str, error: str) -> None:
        super().__init__(detail)
        self.error = error


class AwsServer:
    """KMS in one region. Who we are, boto3 finds as it always does: environment, role of the pod, of the instance."""

    def __init__(self, region: str, *, endpoint: str | None = None, make: Callable[[], Any] | None = None) -> None:
        self._region = region
        self._endpoint = endpoint
        self._make = make or self._client
        self._made: Any = None
        self._making = threading.Lock()

    def __repr__(self) -> str:
        return f"AwsServer({self._region})"

    async def ask(self, operation: str, **arguments: Any) -> Any:
        """Call one operation, named as boto3 does. Raises `AwsRefused`, `KeyUnavailable`, `ConfigurationError`."""
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.to_thread(self._call, operation, arguments)
        except TimeoutError:
            raise KeyUnavailable(f"AWS KMS did not answer within {SECONDS:g} s") from None

    async def close(self) -> None:
        """Close connections."""
        if self._made is not None:
            await asyncio.to_thread(self._made.close)

    def _call(self, operation: str, arguments: dict[str, Any]) -> Any:
        client = self._shared()
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # an extra, and slow to import

        try:
            return getattr(client, operation)(**arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code in _REFUSALS:
                raise AwsRefused(f"AWS KMS refused {operation}: {code}", code) from None
            raise KeyUnavailable(f"AWS KMS could not {operation}: {code}") from None
        except BotoCoreError as error:
            raise KeyUnavailable(f"AWS KMS does not answer {operation} ({type(error).__name__})") from None

    def _shared(self) -> Any:
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _client(self) -> Any:
        try:
            import boto3  # noqa: PLC0415  # an extra, and slow to import
            from botocore.config import Config  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                "BROKER_KMS=awskms needs boto3. Fix: pip install 'smart-token-broker[aws]'"
            ) from None
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        )
        return boto3.Session().client("kms", region_name=self._region, endpoint_url=self._endpoint, config=config)
