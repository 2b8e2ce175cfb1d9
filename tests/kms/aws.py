"""AWS KMS as moto plays it, with what moto leaves out: disabled and deleted keys, and an outage."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA384
from moto import mock_aws
from moto.kms.models import kms_backends

REGION: Final = "eu-central-1"
_USES_THE_KEY: Final = frozenset({"encrypt", "decrypt", "sign", "rotate_key_on_demand"})
_STATES: Final = {"Disabled": "DisabledException", "PendingDeletion": "KMSInvalidStateException"}


class FaultyKms:
    """A boto3 client that refuses as the real one does, counts calls, and can be cut off."""

    def __init__(self) -> None:
        self.client = boto3.client("kms", region_name=REGION)
        self.is_down = False
        self.error: str | None = None
        """What each use of a key is refused with."""
        self.calls: list[str] = []

    def close(self) -> None:
        self.client.close()

    def __getattr__(self, operation: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.calls.append(operation)
            if self.is_down:
                raise EndpointConnectionError(endpoint_url="https://kms.example")
            if operation in _USES_THE_KEY:
                self._refuse(operation, arguments["KeyId"])
            if operation == "sign" and arguments["MessageType"] == "DIGEST":
                return {"Signature": self._sign_digest(**arguments)}
            return getattr(self.client, operation)(**arguments)

        return call

    def _sign_digest(self, KeyId: str, Message: bytes, SigningAlgorithm: str, **_: str) -> bytes:  # noqa: N803  # AWS's names
        """Sign what is hashed already, which moto would hash again."""
        key = cast("Any", kms_backends["123456789012"][REGION].keys[KeyId].private_key).private_key
        prehashed = Prehashed(SHA384())
        if SigningAlgorithm == "ECDSA_SHA_384":
            return bytes(key.sign(Message, ECDSA(prehashed)))
        assert SigningAlgorithm == "RSASSA_PKCS1_V1_5_SHA_384"
        return bytes(key.sign(Message, PKCS1v15(), prehashed))

    def _refuse(self, operation: str, key: str) -> None:
        state = self.client.describe_key(KeyId=key)["KeyMetadata"]["KeyState"]
        code = self.error or _STATES.get(state)
        if code:
            raise ClientError({"Error": {"Code": code, "Message": key}}, operation)


@contextmanager
def playing_aws() -> Iterator[FaultyKms]:
    """Keep AWS's part for as long as the block; nothing leaves this process."""
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        yield FaultyKms()
