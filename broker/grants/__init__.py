"""Grants: what an EHR authorized. Terms and tokens are sealed apart: reading a grant opens no token."""

from broker.grants.health import HealthReport, health_of
from broker.grants.launch_context import LaunchContext, read_context
from broker.grants.record import Grant, GrantState, Terms, TokenSet, Trouble
from broker.grants.records import Commit, Grants, SealedGeneration

__all__ = [
    "Commit",
    "Grant",
    "GrantState",
    "Grants",
    "HealthReport",
    "LaunchContext",
    "SealedGeneration",
    "Terms",
    "TokenSet",
    "Trouble",
    "health_of",
    "read_context",
]
