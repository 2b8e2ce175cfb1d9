"""Seal and open one record."""

from collections.abc import Callable

from broker.clock import Entropy, system_entropy
from broker.errors import SealBroken
from broker.vault import envelope
from broker.vault.context import FORMAT_VERSION, RecordContext
from broker.vault.domain_keys import DomainKeys
from broker.vault.kek import Domain


class Vault:
    """Seals a tenant's bytes under a context, and opens them only under the same one."""

    def __init__(
        self,
        keys: DomainKeys,
        *,
        tenant: str,
        report_broken: Callable[[RecordContext, str], None],
        entropy: Entropy = system_entropy,
    ) -> None:
        self._keys = keys
        self._tenant = tenant
        self._report_broken = report_broken
        self._entropy = entropy

    async def seal(self, context: RecordContext, plaintext: bytes, *, ehr: str = "") -> bytes:
        """Return the envelope of `plaintext`, 97 bytes longer than it.

        `ehr` is the one that the record belongs to; what is destroyed with that EHR's keys. Empty: to the tenant alone.
        Raises `KeyUnavailable`, `StoreUnavailable`; neither for what `ready` was called for a moment ago.
        """
        key = await self._keys.for_sealing(Domain(self._tenant, ehr))
        key.seals += 1
        return envelope.seal(key.cipher, key.id, context, plaintext, self._entropy)

    async def open(self, context: RecordContext, sealed: bytes) -> bytes:
        """Return the plaintext. Raises `SealBroken`, after reporting it, `KeyUnavailable` or `StoreUnavailable`."""
        try:
            return await self._open(context, sealed)
        except SealBroken as broken:
            self._report_broken(context, broken.detail)
            raise

    async def ready(self, ehr: str) -> None:
        """See to it that what comes back from an EHR can be sealed, whatever becomes of the KMS meanwhile.

        It holds for 150 seconds. Raises `KeyUnavailable`, `StoreUnavailable`, `SealBroken`.
        """
        await self._keys.ready(Domain(self._tenant, ehr))

    async def _open(self, context: RecordContext, sealed: bytes) -> bytes:
        key_id = envelope.key_id_of(sealed)
        if key_id is None:
            raise SealBroken(f"a {context.kind} record is not an envelope of format {FORMAT_VERSION}")
        key = await self._keys.for_opening(key_id)
        return envelope.open_with(key.cipher, context, sealed)
