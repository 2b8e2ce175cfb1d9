"""What `broker check` says about the keys in the store: what wraps them and is missing, and what was not finished."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

from broker.cli.finding import Finding
from broker.errors import BrokerError
from broker.kms.moving import MovingKeys
from broker.secret import Secret
from broker.store.connection import connect
from broker.vault import DomainRecords, KeyEncryptionKeys, LocalKeyring
from broker.vault.domain_key import DomainKey
from broker.vault.keyring import PREFIX


async def check_keys(url: Secret, kek: KeyEncryptionKeys, tenant: str) -> AsyncIterator[Finding]:
    """Read the tenant's domain keys; nobody is asked to unwrap them."""
    try:
        async with connect(url, client_name="broker-check") as redis:
            found = [key async for key, _ in DomainRecords(redis).all(tenant) if key.wrapped is not None]
    except BrokerError as error:
        yield Finding("key", "fault", f"{error.code}: {error.detail}")
        return
    keyring = kek if isinstance(kek, LocalKeyring) else kek.keyring if isinstance(kek, MovingKeys) else None
    lines = keyring.keks if keyring is not None else ()
    for finding in key_findings(found, lines, moves=not isinstance(kek, LocalKeyring)):
        yield finding


def key_findings(found: Sequence[DomainKey], lines: Sequence[str], *, moves: bool) -> Iterator[Finding]:
    """Compare them with the names on the keyring, in their order. Pure.

    `moves`: a key-management service wraps now, so that no line of a keyring does.
    """
    by_line = Counter(key.wrapped.kek for key in found if key.wrapped is not None)
    for kek, count in sorted((kek, count) for kek, count in by_line.items() if kek.startswith(PREFIX)):
        if kek not in lines:
            text = f"{count} keys in the store are under {kek}, which is not on the keyring: nothing of theirs opens"
            yield Finding("key", "fault", f"{text}. Fix: put that line back")
        elif moves or kek != lines[0]:
            yield Finding("key", "warning", f"{count} keys are under {kek} still. Fix: broker vault rotate --kek")
    for domain, count in sorted(Counter(str(key.domain) for key in found).items()):
        if count > 1:
            text = f"a rotation of {domain} is under way, or was cut off"
            yield Finding("key", "warning", f"{text}. Fix: run broker vault rotate again, it goes on")
