"""The only room that seals and opens. What is kept in Redis and could be used, or names a person, goes through here.

Envelope encryption in three layers: each record has its own random data key; the data key is wrapped by the domain key
of the tenant and EHR that the record belongs to; and that one by a key-encryption key (KEK), in this process or in a
KMS. The record carries its context as associated data, so a record that is moved to another place, swapped with
another, or put back beside a later generation does not open.
"""

from broker.vault.context import RecordContext
from broker.vault.domain_keys import DomainKeys
from broker.vault.domain_records import DomainRecords
from broker.vault.kek import Destroyed, Domain, KeyEncryptionKeys, WrappedKey
from broker.vault.keyring import LocalKeyring
from broker.vault.vault import Vault

__all__ = [
    "Destroyed",
    "Domain",
    "DomainKeys",
    "DomainRecords",
    "KeyEncryptionKeys",
    "LocalKeyring",
    "RecordContext",
    "Vault",
    "WrappedKey",
]
