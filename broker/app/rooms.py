"""Everything below the journeys: built once, in the order in which it depends on each other."""

from dataclasses import dataclass

from redis.asyncio import Redis

from broker.apps import Directory
from broker.audit import AuditTrail
from broker.clock import Clock, Entropy
from broker.codes import Codes
from broker.credentials import KeyedHash
from broker.egress import Egress
from broker.ehr.discovery import Discovery
from broker.ehr.token_endpoint import TokenEndpoint
from broker.grants import Grants
from broker.handles import Handles
from broker.issued import IssuedRecords
from broker.keys.sealed import create_once
from broker.keys.signing import SigningKeys
from broker.launches import Launches
from broker.refresh.current_token import Refresher
from broker.refresh.renewal import Renewal
from broker.settings import Settings
from broker.vault import Vault


@dataclass(frozen=True, slots=True)
class Rooms:
    """What journeys are built from: everything below `flows/`."""

    settings: Settings
    redis: Redis
    clock: Clock
    entropy: Entropy
    audit: AuditTrail
    egress: Egress
    keyed_hash: KeyedHash
    directory: Directory
    grants: Grants
    handles: Handles
    codes: Codes
    launches: Launches
    signing_keys: SigningKeys
    discovery: Discovery
    token_endpoint: TokenEndpoint
    refresher: Refresher


async def open_rooms(
    settings: Settings,
    redis: Redis,
    vault: Vault,
    audit: AuditTrail,
    egress: Egress,
    clock: Clock,
    entropy: Entropy,
) -> Rooms:
    """Build the rooms. Raises `StoreUnavailable`, `SealBroken` (a wrong key-encryption key)."""

    async def new_hash_key() -> bytes:
        return entropy(32)

    tenant, directory = settings.tenant, Directory(settings)
    keyed_hash = KeyedHash(await create_once(redis, vault, tenant=tenant, name="hash", make=new_hash_key))
    grants = Grants(redis, vault, tenant=tenant, clock=clock)
    records = IssuedRecords(vault, keyed_hash, tenant=tenant, clock=clock, entropy=entropy)
    handles = Handles(redis, records, grants, clock=clock)
    signing_keys = SigningKeys(redis, vault, tenant=tenant, clock=clock)
    discovery, token_endpoint = Discovery(egress, clock), TokenEndpoint(egress)
    renewal = Renewal(redis, grants, directory, discovery, token_endpoint, signing_keys, audit, clock, entropy)
    return Rooms(
        settings=settings,
        redis=redis,
        clock=clock,
        entropy=entropy,
        audit=audit,
        egress=egress,
        keyed_hash=keyed_hash,
        directory=directory,
        grants=grants,
        handles=handles,
        codes=Codes(redis, records, handles),
        launches=Launches(redis, vault, keyed_hash, tenant=tenant, entropy=entropy),
        signing_keys=signing_keys,
        discovery=discovery,
        token_endpoint=token_endpoint,
        refresher=Refresher(grants, renewal, clock),
    )
