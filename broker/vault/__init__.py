"""The only room that seals and opens. What is kept in Redis and could be used, or names a person, goes through here.

Envelope encryption: each record has its own random data key; the data key is wrapped by a key-encryption key (KEK).
Both layers are AES-256-GCM and both carry the record's context as associated data, so a record that is moved to another
place, swapped with another, or put back beside a later generation does not open.
"""

from broker.vault.context import RecordContext
from broker.vault.envelope import Vault
from broker.vault.kek import Destroyed, Domain, KeyEncryptionKeys, WrappedKey
from broker.vault.keyring import LocalKeyring

__all__ = ["Destroyed", "Domain", "KeyEncryptionKeys", "LocalKeyring", "RecordContext", "Vault", "WrappedKey"]
