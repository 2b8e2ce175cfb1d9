"""A search that says more than the request did, so that its answer is smaller."""

from dataclasses import replace

from broker.interactions.interaction import Interaction, Need, Pairs
from broker.interactions.syntax import decode_pairs, encode_pairs


def restrict(search: Interaction, need: Need, pairs: Pairs, *, patient: str | None = None) -> Interaction:
    """Return the search with more pairs, by which its own need is restricted: what is found has all of them.

    They stand where the search's own do: in the form of a search by POST, else in the query. `patient` is whom they
    name.
    """
    restricted = replace(need, parameters=need.parameters + pairs)
    named = (*search.patients, patient) if patient and patient not in search.patients else search.patients
    changed = replace(
        search,
        needs=tuple(restricted if one == need else one for one in search.needs),
        parameters=search.parameters + pairs,
        patients=named,
    )
    if search.body is not None:
        return replace(changed, body=encode_pairs(decode_pairs(search.body) + pairs).encode())
    return replace(changed, query="&".join(filter(None, (search.query, encode_pairs(pairs)))))
