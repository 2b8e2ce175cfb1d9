"""The broker's DPoP proofs at EHRs: signed anew for each request, with the nonce that the server last gave (OA-23)."""

import re
from collections.abc import Mapping
from typing import Final, Literal

from broker.clock import Clock, Entropy
from broker.dpop import OWN_ALGORITHMS, make_proof, new_key
from broker.egress import Answer
from broker.ehr.endpoints import Endpoints, parse_json_object
from broker.ehr.token_answer import TokenAnswer
from broker.errors import EhrMisbehaved
from broker.origins import origin
from broker.secret import Secret

_JTI_BYTES: Final = 16
_NOT_OFFERED: Final = f"dpop = true, and the EHR lists none of {', '.join(OWN_ALGORITHMS)} for DPoP (OA-23)"
_NONCE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,1024}")
"""RFC 9449 §8.1: NQCHAR."""
_ASKS: Final = ('error="use_dpop_nonce"', "error=use_dpop_nonce")
_CHALLENGE_CHARACTERS: Final = 4096
"""Of a challenge, no more is read."""


class DpopProofs:
    """Signs proofs and remembers each origin's nonce, in memory: a lost one costs one more request."""

    def __init__(self, *, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._nonces: dict[str, str] = {}
        """By origin. Those are EHRs' own, which are configured, so there are only so many."""

    def prove(self, key: Secret | None, method: str, url: str, *, token: Secret | None = None) -> dict[str, str]:
        """Return the header that proves possession of `key` for one request; nothing without a key."""
        if key is None:
            return {}
        proof = make_proof(
            key,
            method=method,
            url=url,
            now=self._clock(),
            jti=self._entropy(_JTI_BYTES).hex(),
            nonce=self._nonces.get(origin(url)),
            token=token,
        )
        return {"DPoP": proof}

    def learn(self, url: str, headers: Mapping[str, str]) -> bool:
        """Keep the nonce that an answer brings (§8.2). Returns whether it brings one."""
        nonce = headers.get("dpop-nonce", "")
        if not _NONCE.fullmatch(nonce):
            return False
        self._nonces[origin(url)] = nonce
        return True


def grant_key(endpoints: Endpoints) -> Secret:
    """Make the key of one grant. Raises like `offered_algorithm`."""
    return new_key(offered_algorithm(endpoints))


def offered_algorithm(endpoints: Endpoints) -> Literal["ES256", "ES384"]:
    """Return what to sign proofs with. Raises `EhrMisbehaved` when the EHR lists no DPoP, or no algorithm of ours."""
    for algorithm in OWN_ALGORITHMS:
        if algorithm in endpoints.dpop_algorithms:
            return algorithm
    raise EhrMisbehaved(_NOT_OFFERED)


def binding_warning(endpoints: Endpoints) -> str | None:
    """Say that an EHR cannot bind tokens, so that a registration with `dpop = true` is refused there."""
    try:
        offered_algorithm(endpoints)
    except EhrMisbehaved as error:
        return error.detail
    return None


def require_bound(answer: TokenAnswer, key: Secret | None) -> None:
    """Raises `EhrMisbehaved` for a token that anybody could use, where one bound to `key` was asked for."""
    if key is not None and not answer.bound:
        raise EhrMisbehaved("the EHR was sent a DPoP proof, and answered a token that is not bound to its key (OA-23)")


def token_endpoint_wants_nonce(answer: Answer) -> bool:
    """Whether a token request was refused for its nonce alone, and told the right one: nothing was processed (§8)."""
    if answer.status not in {400, 401} or not _NONCE.fullmatch(answer.headers.get("dpop-nonce", "")):
        return False
    document = parse_json_object(answer.body)
    return document is not None and document.get("error") == "use_dpop_nonce"


def fhir_server_wants_nonce(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a FHIR request was refused for its nonce alone (§9)."""
    said = headers.get("www-authenticate", "")[:_CHALLENGE_CHARACTERS].lower()
    _, _, parameters = said.partition("dpop ")  # no pattern: an EHR writes this, and could make it a slow one to match
    return status == 401 and any(ask in parameters for ask in _ASKS)
