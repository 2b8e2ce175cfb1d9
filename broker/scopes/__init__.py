"""SMART scopes: parsed once, kept in one canonical form, compared by meaning (SC-01 to SC-16).

A word that looks like a SMART scope and is not one is an error where an app or the operator wrote it, and nothing at
all where an EHR answered it. Words outside SMART's grammar are kept as they are and open no FHIR data.

`Scopes` is always canonical, so two scope texts that mean the same are equal, whatever dialect, order or spelling they
were written in (SC-04, SC-07). `render` says them as one EHR understands them.
"""

from broker.scopes.algebra import Scopes
from broker.scopes.dialects import Dialect, Rendered, choose_dialect, expand_wildcards, render
from broker.scopes.resource import LETTERS, LEVELS, Parameters, ResourceScope

__all__ = [
    "LETTERS",
    "LEVELS",
    "Dialect",
    "Parameters",
    "Rendered",
    "ResourceScope",
    "Scopes",
    "choose_dialect",
    "expand_wildcards",
    "render",
]
