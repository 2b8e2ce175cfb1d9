"""Grants: what an EHR authorized. Terms and tokens are sealed apart: reading a grant opens no token."""

from broker.grants.health import Health, HealthReport, health_of, lasting_health
from broker.grants.launch_context import LaunchContext, read_context
from broker.grants.record import Grant, GrantState, Terms, TokenSet, Trouble, began_at
from broker.grants.records import Commit, Grants, SealedGeneration
from broker.grants.untold import Untold

__all__ = [
    "Commit",
    "Grant",
    "GrantState",
    "Grants",
    "Health",
    "HealthReport",
    "LaunchContext",
    "SealedGeneration",
    "Terms",
    "TokenSet",
    "Trouble",
    "Untold",
    "began_at",
    "health_of",
    "lasting_health",
    "read_context",
]
