"""Grants: what an EHR authorized. Terms and tokens are sealed apart: reading a grant opens no token."""

from broker.grants.launch_context import LaunchContext, read_context
from broker.grants.record import Grant, GrantState, Terms, TokenSet
from broker.grants.records import Commit, Grants

__all__ = ["Commit", "Grant", "GrantState", "Grants", "LaunchContext", "Terms", "TokenSet", "read_context"]
