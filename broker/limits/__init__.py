"""Limits: what a handle may not do of what its scopes allow. Values and pure checks; they only ever take away."""

from broker.limits.applying import applied, beyond, require_met
from broker.limits.arrival import Arrival
from broker.limits.limits import Limits, meet
from broker.limits.networks import Address, Network, canonical, is_within, plain_address, read_network
from broker.limits.reading import read_interaction, read_limits, read_moment, read_parameter, read_true, read_type

__all__ = [
    "Address",
    "Arrival",
    "Limits",
    "Network",
    "applied",
    "beyond",
    "canonical",
    "is_within",
    "meet",
    "plain_address",
    "read_interaction",
    "read_limits",
    "read_moment",
    "read_network",
    "read_parameter",
    "read_true",
    "read_type",
    "require_met",
]
