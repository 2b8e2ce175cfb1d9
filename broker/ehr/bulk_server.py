"""Ask an EHR about bulk exports, and fetch their files from wherever a manifest says they lie (BD-09 to BD-12).

A token goes to origins that the caller names, and to no other; where one is redirected, none goes along (PX-05).
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin

from broker.egress import Egress, StreamedAnswer
from broker.ehr.dpop import DpopProofs, fhir_server_wants_nonce
from broker.errors import EhrMisbehaved, EhrUnreachable
from broker.origins import origin
from broker.secret import Secret

MOST_REDIRECTS: Final = 2
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access token, the key that it is bound to, if any, and where it may go."""

    token: Secret
    proof_key: Secret | None
    origins: Collection[str]


@dataclass(frozen=True, slots=True)
class BulkServer:
    """The EHR's Bulk Data side."""

    egress: Egress
    proofs: DpopProofs

    @asynccontextmanager
    async def send(
        self,
        method: str,
        url: str,
        *,
        credentials: Credentials | None,
        headers: Mapping[str, str],
        content: bytes | None = None,
        timeout: float,
    ) -> AsyncIterator[StreamedAnswer]:
        """Send one request; without `credentials` nothing of ours goes along. `timeout` is the longest silence.

        Raises `EhrMisbehaved` for a URL that the token may not go to, or that may not be called; `EhrUnreachable`,
        `EhrAnswerLost`.
        """
        if credentials is not None and origin(url) not in credentials.origins:
            raise EhrMisbehaved("a URL that the token may not go to (PX-03)")
        tries = 1 if credentials is None or credentials.proof_key is None else 2
        for _ in range(tries):
            own = self._authorization(credentials, method, url)
            is_ours = credentials is not None
            async with self.egress.stream(
                method, url, headers={**headers, **own}, content=content, timeout=timeout, is_kept=is_ours
            ) as answer:
                if credentials is None or credentials.proof_key is None:
                    yield answer
                    return
                self.proofs.learn(url, answer.headers)
                if not fhir_server_wants_nonce(answer.status, answer.headers):
                    yield answer
                    return
        raise EhrUnreachable("the EHR wants another DPoP nonce", public="Send the request again.")

    @asynccontextmanager
    async def fetch(
        self, url: str, *, credentials: Credentials | None, headers: Mapping[str, str], timeout: float
    ) -> AsyncIterator[StreamedAnswer]:
        """Get a file, and follow redirects to where it is stored, without the token. Raises as `send`."""
        async with AsyncExitStack() as open_answers:
            for redirects in range(1 + MOST_REDIRECTS):
                answer = await open_answers.enter_async_context(
                    self.send("GET", url, credentials=credentials, headers=headers, timeout=timeout)
                )
                if answer.status not in _REDIRECTS:
                    if answer.status == 401 and redirects:  # which says nothing of the token
                        raise EhrMisbehaved("the storage that the EHR redirects to wants more than its URL")
                    yield answer
                    return
                url, credentials = _target(url, answer.headers), None
                await open_answers.aclose()
            raise EhrMisbehaved(f"a file is behind more than {MOST_REDIRECTS} redirects")

    def _authorization(self, credentials: Credentials | None, method: str, url: str) -> dict[str, str]:
        if credentials is None:
            return {}
        token, key = credentials.token, credentials.proof_key
        scheme = "Bearer" if key is None else "DPoP"
        proof = self.proofs.prove(key, method, url.partition("?")[0], token=token)
        return {"authorization": f"{scheme} {token.reveal()}", **proof}


def _target(url: str, headers: Mapping[str, str]) -> str:
    """Return where a redirect leads; https where it came from https (OR-08)."""
    try:
        target = urljoin(url, headers["location"])
    except (KeyError, ValueError):
        raise EhrMisbehaved("a redirect without a Location that can be read") from None
    if url.startswith("https:") and not target.startswith("https:"):
        raise EhrMisbehaved("a redirect from https to what is not (PX-05)")
    return target
