"""Send one FHIR request to the EHR with the raw token, and give the answer as it streams (PX-01…PX-11)."""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

from broker.egress import Egress, StreamedAnswer
from broker.ehr.dpop import DpopProofs, fhir_server_wants_nonce
from broker.errors import EhrUnreachable, InvalidRequest
from broker.secret import Secret

FHIR_JSON: Final = "application/fhir+json"
REQUEST_HEADERS: Final = frozenset(
    {
        "accept-language",
        "content-type",
        "if-match",
        "if-modified-since",
        "if-none-exist",
        "if-none-match",
        "x-request-id",
    }
)
"""What of an app's headers goes on as it is; all else, its own Authorization and cookies first, stays here (PX-04)."""
ANSWER_HEADERS: Final = frozenset(
    {"content-type", "etag", "last-modified", "preference-applied", "retry-after", "x-request-id"}
)
"""What of the EHR's headers reaches the app; locations do after rewriting, challenges never (PX-10)."""
_KEPT: Final = {name.encode(): name for name in REQUEST_HEADERS}
_LONGEST_HEADER: Final = 4096
_JSON: Final = re.compile(r"text/json|application/(?:[a-z0-9.-]+\+)?json")
_OTHER_CHARSET: Final = re.compile(r'charset(?!=("?)(?:utf-?8|us-ascii)\1\s*(?:[;,]|$))')


class FhirServer:
    """The EHR's FHIR side."""

    def __init__(self, egress: Egress, proofs: DpopProofs) -> None:
        self._egress = egress
        self._proofs = proofs

    async def send(
        self,
        *,
        fhir_base: str,
        token: Secret,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        content: bytes | AsyncIterator[bytes] | None,
        timeout: float,
        proof_key: Secret | None = None,
    ) -> StreamedAnswer:
        """Send to `fhir_base` and nowhere else: the URL is built from it and from parsed parts (PX-03).

        Whoever gets the answer closes it. `timeout` is the longest silence in seconds. A token that is bound to
        `proof_key` goes with a proof; a request that was refused for its nonce alone is sent once more if its body is
        at hand (OA-23).

        Raises `EhrUnreachable`, `EhrAnswerLost`.
        """
        below = f"/{path}" if path else ""
        target = f"{below}?{query}" if query else below
        tries = 1 if proof_key is None or not isinstance(content, bytes | None) else 2
        for _ in range(tries):
            credentials = self._credentials(token, proof_key, method, fhir_base + below)
            answer = await self._egress.send(
                method, fhir_base, target, headers={**headers, **credentials}, content=content, timeout=timeout
            )
            if proof_key is None:
                return answer
            self._proofs.learn(fhir_base + below, answer.headers)
            if not fhir_server_wants_nonce(answer.status, answer.headers):
                return answer
            answer.close()
        raise EhrUnreachable("the EHR wants another DPoP nonce", public="Send the request again.")

    def _credentials(self, token: Secret, proof_key: Secret | None, method: str, url: str) -> dict[str, str]:
        if proof_key is None:
            return {"authorization": f"Bearer {token.reveal()}"}
        proof = self._proofs.prove(proof_key, method, url, token=token)
        return {"authorization": f"DPoP {token.reveal()}", **proof}


def request_headers(
    presented: Iterable[tuple[bytes, bytes]], *, accept: str, preferences: Iterable[str] = ()
) -> dict[str, str]:
    """Keep the headers that go on, and ask for what can be checked on the way back.

    `preferences` are all that goes on in `Prefer`: what an app wrote there is not passed on, since two programs that
    read quotes or repetitions in two ways would disagree on what is asked (RFC 7240 §2).

    Raises `InvalidRequest` for one that cannot go on as it is: a write without its `If-Match` would mean another thing.
    """
    kept: dict[str, str] = {}
    for raw_name, value in presented:
        name = _KEPT.get(raw_name.lower())
        if name is None:
            continue
        text = value.decode("latin-1")
        kept[name] = f"{kept[name]}, {text}" if name in kept else text
        if len(kept[name]) > _LONGEST_HEADER or not text.isascii():
            raise InvalidRequest(f"{name} is too long or not ASCII", public=f"The header {name} cannot be passed on.")
    kept["accept"] = accept
    if prefer := ", ".join(preferences):
        kept["prefer"] = prefer
    return kept


def answer_headers(received: Mapping[str, str]) -> dict[str, str]:
    """Keep the headers that reach the app."""
    return {name: value for name, value in received.items() if name in ANSWER_HEADERS and value.isprintable()}


def is_json(received: Mapping[str, str]) -> bool:
    """Whether the answer calls itself JSON in UTF-8 (RFC 8259 §8.1), and nothing else.

    Of a repeated Content-Type browsers believe the last. In another encoding nothing that is looked for would be found.
    """
    said = received.get("content-type", "")
    if said == FHIR_JSON:
        return True
    said = said.lower()
    is_other = "charset" in said and _OTHER_CHARSET.search(said)
    return not is_other and all(_JSON.fullmatch(value.partition(";")[0].strip()) for value in said.split(","))
