"""Everything below the journeys: built once, in the order in which it depends on each other."""

from dataclasses import dataclass

from redis.asyncio import Redis

from broker.apps import Directory
from broker.audit import AuditTrail
from broker.bulk import Jobs
from broker.clock import Clock, Entropy
from broker.codes import Codes
from broker.credentials import KeyedHash
from broker.egress import Egress
from broker.ehr.discovery import Discovery
from broker.ehr.dpop import DpopProofs
from broker.ehr.dynamic_client import DynamicClients
from broker.ehr.id_token import IdTokens
from broker.ehr.issuer_keys import IssuerKeys
from broker.ehr.scope_words import ScopeWords
from broker.ehr.token_endpoint import TokenEndpoint
from broker.fair_use import FairUse
from broker.flows.proof.last_used import LastUsed
from broker.grants import Grants, Untold
from broker.handles import ExchangedHandles, Handles
from broker.issued import IssuedRecords
from broker.keys.identity import IdentityKey
from broker.keys.rings import Rings
from broker.keys.sealed import create_once
from broker.keys.sealed_record import SealedRecords
from broker.keys.secrets import ClientSecrets
from broker.keys.signing import SigningKeys
from broker.keys.tending import Tending
from broker.kms.signing import RemoteSigning
from broker.launches import Launches
from broker.pins import Pins
from broker.reauthorizations import Reauthorizations
from broker.refresh.answers import Answers
from broker.refresh.asking import Asking
from broker.refresh.current_token import Refresher
from broker.refresh.ehr_side import EhrSide
from broker.refresh.ends import ObservedEnds
from broker.refresh.gate import Gate
from broker.refresh.lost import LostAnswers
from broker.refresh.renewal import Renewal
from broker.refresh.schedule import Schedule
from broker.refresh.sending import Sending
from broker.refresh.trail import RefreshTrail
from broker.settings import Settings
from broker.store.shared import SharedConnections
from broker.vault import Vault
from broker.witness import Witness


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
    shared: SharedConnections
    handles: Handles
    exchanged_handles: ExchangedHandles
    codes: Codes
    launches: Launches
    reauthorizations: Reauthorizations
    exports: Jobs
    signing_keys: SigningKeys
    client_secrets: ClientSecrets
    rings: Rings
    tending: Tending
    identity_key: IdentityKey
    pins: Pins
    discovery: Discovery
    dpop_proofs: DpopProofs
    token_endpoint: TokenEndpoint
    dynamic_clients: DynamicClients
    scope_words: ScopeWords
    ehr_side: EhrSide
    gate: Gate
    fair_use: FairUse
    id_tokens: IdTokens
    refresher: Refresher
    schedule: Schedule
    last_used: LastUsed
    witness: Witness


async def open_rooms(
    settings: Settings,
    redis: Redis,
    vault: Vault,
    signing: RemoteSigning,
    audit: AuditTrail,
    egress: Egress,
    witness: Witness,
    clock: Clock,
    entropy: Entropy,
) -> Rooms:
    """Build the rooms. Raises `StoreUnavailable`, `SealBroken` (a wrong key-encryption key)."""
    tenant, keyed_hash = settings.tenant, await _keyed_hash(redis, vault, settings.tenant, entropy)
    directory, grants = Directory(settings), _grants(settings, redis, vault, witness, clock, entropy)
    records = IssuedRecords(vault, keyed_hash, tenant=tenant, clock=clock, entropy=entropy)
    sealed, schedule, shared = SealedRecords(redis, vault, tenant), Schedule(redis), SharedConnections(redis)
    handles = Handles(redis, shared, records, grants, clock=clock)
    rings, client_secrets = Rings(sealed, signing, audit, clock), ClientSecrets(sealed, keyed_hash, audit, clock)
    signing_keys = SigningKeys(rings, signing, client_secrets, public_url=settings.public_url, clock=clock)
    pins, gate = Pins(redis, vault, keyed_hash, audit, clock, tenant), Gate(redis, clock, entropy)
    dpop_proofs, dynamic_clients = DpopProofs(clock=clock, entropy=entropy), DynamicClients(egress, clock)
    discovery, token_endpoint = Discovery(egress, clock, pins), TokenEndpoint(egress, dpop_proofs)
    scope_words, id_tokens = ScopeWords(egress, clock), IdTokens(discovery, IssuerKeys(egress, clock), clock)
    ehr_side = EhrSide(directory, discovery, scope_words, token_endpoint, signing_keys, gate)
    renewal = _renewal(redis, grants, ehr_side, Asking(ehr_side, dynamic_clients), id_tokens, audit, clock, entropy)
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
        shared=shared,
        handles=handles,
        exchanged_handles=ExchangedHandles(redis, records, clock=clock),
        codes=Codes(redis, records, handles),
        launches=Launches(redis, vault, keyed_hash, tenant=tenant, entropy=entropy),
        reauthorizations=Reauthorizations(redis, records, clock, entropy),
        exports=Jobs(redis, vault, tenant, clock),
        signing_keys=signing_keys,
        client_secrets=client_secrets,
        rings=rings,
        tending=Tending(directory, rings, signing_keys, client_secrets, clock),
        identity_key=IdentityKey(redis, vault, tenant=tenant),
        pins=pins,
        discovery=discovery,
        dpop_proofs=dpop_proofs,
        token_endpoint=token_endpoint,
        dynamic_clients=dynamic_clients,
        scope_words=scope_words,
        ehr_side=ehr_side,
        gate=gate,
        fair_use=FairUse.of(settings, redis, audit, clock),
        id_tokens=id_tokens,
        refresher=Refresher(grants, renewal, schedule, clock),
        schedule=schedule,
        last_used=LastUsed(redis, clock),
        witness=witness,
    )


def _renewal(
    redis: Redis,
    grants: Grants,
    ehr_side: EhrSide,
    asking: Asking,
    id_tokens: IdTokens,
    audit: AuditTrail,
    clock: Clock,
    entropy: Entropy,
) -> Renewal:
    trail = RefreshTrail(audit)
    answers, lost = Answers(ehr_side, id_tokens, trail), LostAnswers(grants, ehr_side, trail)
    sending = Sending(redis, grants, ehr_side.gate, clock)
    ends = ObservedEnds(redis, clock, entropy)
    return Renewal(redis, grants, ehr_side, asking, answers, lost, sending, trail, ends, clock, entropy)


def _grants(settings: Settings, redis: Redis, vault: Vault, witness: Witness, clock: Clock, entropy: Entropy) -> Grants:
    untold = Untold(redis, clock, entropy, heard=bool(settings.webhook))
    return Grants(redis, vault, tenant=settings.tenant, clock=clock, doubts=witness, untold=untold)


async def _keyed_hash(redis: Redis, vault: Vault, tenant: str, entropy: Entropy) -> KeyedHash:
    async def new_key() -> bytes:
        return entropy(32)

    return KeyedHash(await create_once(redis, vault, tenant=tenant, name="hash", make=new_key))
