"""Google Cloud KMS in memory, behind the interface of its client: its own messages and its own exceptions."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.api_core import exceptions
from google.cloud import kms_v1

RING: Final = "projects/p/locations/europe-west3/keyRings/r"
_STATE: Final = kms_v1.CryptoKeyVersion.CryptoKeyVersionState


class FakeGoogle:
    """What a key ring does. A ciphertext begins with the number of its version, as Google's tells it, too."""

    def __init__(self) -> None:
        self.keys: dict[str, kms_v1.CryptoKey] = {}
        self.versions: dict[str, tuple[kms_v1.CryptoKeyVersion, AESGCM]] = {}
        self.fails: Callable[[str], None] = lambda _operation: None
        self.transport = self

    def close(self) -> None:
        """Close nothing."""

    def get_key_ring(self, request: Any, **options: Any) -> kms_v1.KeyRing:
        wanted = self._read(kms_v1.GetKeyRingRequest, "get_key_ring", request, options)
        if wanted.name != RING:
            raise exceptions.NotFound("no key ring")
        return kms_v1.KeyRing(name=RING)

    def get_crypto_key(self, request: Any, **options: Any) -> kms_v1.CryptoKey:
        wanted = self._read(kms_v1.GetCryptoKeyRequest, "get_crypto_key", request, options)
        return self._key(wanted.name)

    def create_crypto_key(self, request: Any, **options: Any) -> kms_v1.CryptoKey:
        wanted = self._read(kms_v1.CreateCryptoKeyRequest, "create_crypto_key", request, options)
        name = f"{wanted.parent}/cryptoKeys/{wanted.crypto_key_id}"
        assert len(wanted.crypto_key_id) <= 63
        if name in self.keys:
            raise exceptions.AlreadyExists(name)
        self.keys[name] = kms_v1.CryptoKey(wanted.crypto_key, name=name)
        self._add(name, primary=True)
        return self._key(name)

    def create_crypto_key_version(self, request: Any, **options: Any) -> kms_v1.CryptoKeyVersion:
        wanted = self._read(kms_v1.CreateCryptoKeyVersionRequest, "create_crypto_key_version", request, options)
        return self._add(self._key(wanted.parent).name, primary=False)

    def update_crypto_key_primary_version(self, request: Any, **options: Any) -> kms_v1.CryptoKey:
        wanted = self._read(kms_v1.UpdateCryptoKeyPrimaryVersionRequest, "update_primary", request, options)
        key = self._key(wanted.name)
        key.primary = self._version(f"{wanted.name}/cryptoKeyVersions/{wanted.crypto_key_version_id}")[0]
        return key

    def list_crypto_key_versions(self, request: Any, **options: Any) -> list[kms_v1.CryptoKeyVersion]:
        wanted = self._read(kms_v1.ListCryptoKeyVersionsRequest, "list_crypto_key_versions", request, options)
        return [one for name, (one, _) in self.versions.items() if name.startswith(self._key(wanted.parent).name + "/")]

    def destroy_crypto_key_version(self, request: Any, **options: Any) -> kms_v1.CryptoKeyVersion:
        wanted = self._read(kms_v1.DestroyCryptoKeyVersionRequest, "destroy_crypto_key_version", request, options)
        version = self._version(wanted.name)[0]
        version.state = _STATE.DESTROY_SCHEDULED
        version.destroy_time = datetime.now(UTC) + timedelta(days=30)
        for key in self.keys.values():
            if key.primary.name == version.name:
                key.primary = version
        return version

    def encrypt(self, request: Any, **options: Any) -> kms_v1.EncryptResponse:
        wanted = self._read(kms_v1.EncryptRequest, "encrypt", request, options)
        version, cipher = self._version(self._key(wanted.name).primary.name)
        nonce = secrets.token_bytes(12)
        number = int(version.name.rpartition("/")[2]).to_bytes(2, "big")
        sealed = number + nonce + cipher.encrypt(nonce, wanted.plaintext, wanted.additional_authenticated_data)
        return kms_v1.EncryptResponse(name=version.name, ciphertext=sealed)

    def decrypt(self, request: Any, **options: Any) -> kms_v1.DecryptResponse:
        wanted = self._read(kms_v1.DecryptRequest, "decrypt", request, options)
        number, nonce, sealed = wanted.ciphertext[:2], wanted.ciphertext[2:14], wanted.ciphertext[14:]
        name = f"{self._key(wanted.name).name}/cryptoKeyVersions/{int.from_bytes(number, 'big')}"
        if name not in self.versions:
            raise exceptions.InvalidArgument("the ciphertext is invalid")
        cipher = self._version(name)[1]
        try:
            plaintext = cipher.decrypt(nonce, sealed, wanted.additional_authenticated_data)
        except (InvalidTag, ValueError):
            raise exceptions.InvalidArgument("the ciphertext is invalid") from None
        return kms_v1.DecryptResponse(plaintext=plaintext)

    def _read(self, message: Any, operation: str, request: Any, options: dict[str, Any]) -> Any:
        assert set(options) == {"timeout", "retry"}
        self.fails(operation)
        return message(request)  # refuses fields that do not exist

    def _key(self, name: str) -> kms_v1.CryptoKey:
        if name not in self.keys:
            raise exceptions.NotFound(name)
        return self.keys[name]

    def _version(self, name: str) -> tuple[kms_v1.CryptoKeyVersion, AESGCM]:
        version, cipher = self.versions[name]
        if version.state != _STATE.ENABLED:
            raise exceptions.FailedPrecondition(f"{name} is not enabled")
        return version, cipher

    def _add(self, key: str, *, primary: bool) -> kms_v1.CryptoKeyVersion:
        number = 1 + sum(name.startswith(key + "/") for name in self.versions)
        version = kms_v1.CryptoKeyVersion(name=f"{key}/cryptoKeyVersions/{number}", state=_STATE.ENABLED)
        self.versions[version.name] = (version, AESGCM(secrets.token_bytes(32)))
        if primary:
            self.keys[key].primary = version
        return version
