"""Handles: what an app holds instead of a token."""

from broker.handles.exchanged import MOST_DESCENDANTS, MOST_EXCHANGES, ExchangedHandles
from broker.handles.handle import UNBOUND, Ancestor, Confirmation, Handle, Issued, RefreshHandle, actors
from broker.handles.handles import Handles, require_well_formed

__all__ = [
    "MOST_DESCENDANTS",
    "MOST_EXCHANGES",
    "UNBOUND",
    "Ancestor",
    "Confirmation",
    "ExchangedHandles",
    "Handle",
    "Handles",
    "Issued",
    "RefreshHandle",
    "actors",
    "require_well_formed",
]
