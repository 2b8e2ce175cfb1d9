"""Requests to an EHR that the broker authenticates: for tokens, to revoke them, and pushed ones (TK-*, OA-22)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import urlencode

from authlib.oauth2.rfc6749.parameters import prepare_token_request

from broker.egress import Answer, Egress
from broker.ehr.authorization import parse_pushed
from broker.ehr.client_auth import Authenticate
from broker.ehr.dpop import DpopProofs, token_endpoint_wants_nonce
from broker.ehr.introspection import Introspection, parse_introspection
from broker.ehr.token_answer import (
    TokenAnswer,
    check_revocation,
    gives_something,
    parse_answer,
    refuses_client,
)
from broker.secret import Secret


class TokenEndpoint:
    """Sends token requests. Never retries, because only the caller knows what may be sent twice; with two exceptions.

    A request that was refused for its DPoP nonce was not processed, so it is sent once more with the right one (OA-23).
    Nor was one that was answered `invalid_client` (RFC 6749 §5.2): a client is authenticated before anything else is
    looked at. So it is sent again with the next credential, if there is one (RG-11), and what the last one got counts.
    """

    def __init__(self, egress: Egress, proofs: DpopProofs) -> None:
        self._egress = egress
        self._proofs = proofs

    async def exchange_code(
        self,
        url: str,
        authenticate: Authenticate,
        *,
        code: Secret,
        redirect_uri: str,
        code_verifier: Secret,
        timeout: float,
        proof_key: Secret | None = None,
    ) -> TokenAnswer:
        """`grant_type=authorization_code` (TK-02). With `proof_key`, the tokens are to be bound to it (OA-23)."""
        body = prepare_token_request(
            "authorization_code", redirect_uri=redirect_uri, code=code.reveal(), code_verifier=code_verifier.reveal()
        )
        return await self._request(url, authenticate, body, timeout, proof_key)

    async def refresh(
        self,
        url: str,
        authenticate: Authenticate,
        *,
        refresh_token: Secret,
        timeout: float,
        proof_key: Secret | None = None,
    ) -> TokenAnswer:
        """`grant_type=refresh_token`, without `scope` (RF-01, RF-02)."""
        body = prepare_token_request("refresh_token", refresh_token=refresh_token.reveal())
        return await self._request(url, authenticate, body, timeout, proof_key, refreshing=True)

    async def client_credentials(
        self, url: str, authenticate: Authenticate, *, scope: str, timeout: float, proof_key: Secret | None = None
    ) -> TokenAnswer:
        """`grant_type=client_credentials` with `scope`, always (BS-03)."""
        body = prepare_token_request("client_credentials", scope=scope)
        return await self._request(url, authenticate, body, timeout, proof_key)

    async def push(self, url: str, authenticate: Authenticate, *, request: Mapping[str, str], timeout: float) -> Secret:
        """Push an authorization request and return its one-time `request_uri` (RFC 9126 §2, OA-22)."""
        body = urlencode({name: value for name, value in request.items() if name != "client_id"})
        return parse_pushed(await self._post(url, replace(authenticate, named="always"), body, timeout))

    async def revoke(self, url: str, authenticate: Authenticate, *, token: Secret, hint: str, timeout: float) -> None:
        """Ask the EHR to revoke a token (RFC 7009). Raises `EhrRefused`, `EhrUnreachable`, `EhrMisbehaved`."""
        body = urlencode({"token": token.reveal(), "token_type_hint": hint})
        check_revocation(await self._post(url, authenticate, body, timeout))

    async def introspect(
        self, url: str, authenticate: Authenticate, *, token: Secret, hint: str = "access_token", timeout: float
    ) -> Introspection:
        """Ask the EHR about a token (RFC 7662 §2.1). Raises `EhrRefused`, `EhrUnreachable`, `EhrMisbehaved`."""
        body = urlencode({"token": token.reveal(), "token_type_hint": hint})
        return parse_introspection(await self._post(url, authenticate, body, timeout))

    async def _request(
        self,
        url: str,
        authenticate: Authenticate,
        body: str,
        timeout: float,
        proof_key: Secret | None,
        *,
        refreshing: bool = False,
    ) -> TokenAnswer:
        answer = await self._post(url, authenticate, body, timeout, proof_key, refreshing=refreshing)
        return parse_answer(answer, bound=proof_key is not None)

    async def _post(
        self,
        url: str,
        authenticate: Authenticate,
        body: str,
        timeout: float,
        proof_key: Secret | None = None,
        *,
        refreshing: bool = False,
    ) -> Answer:
        refused: list[str] = []
        *others, last = authenticate.in_turn()
        for one in others:
            answer = await self._prove(url, one, body, timeout, proof_key, refreshing=refreshing)
            if not refuses_client(answer):
                return _heard(authenticate, refused, one, answer)
            refused.append(one.credential)
        answer = await self._prove(url, last, body, timeout, proof_key, refreshing=refreshing)
        return _heard(authenticate, refused, last, answer)

    async def _prove(
        self,
        url: str,
        authenticate: Authenticate,
        body: str,
        timeout: float,
        proof_key: Secret | None,
        *,
        refreshing: bool,
    ) -> Answer:
        send = partial(self._send, url, authenticate, body, timeout, proof_key, refreshing=refreshing)
        answer = await send()
        if proof_key is not None and token_endpoint_wants_nonce(answer):
            answer = await send()
        return answer

    async def _send(
        self,
        url: str,
        authenticate: Authenticate,
        body: str,
        timeout: float,
        proof_key: Secret | None,
        *,
        refreshing: bool,
    ) -> Answer:
        proof = await authenticate(url, refreshing=refreshing)
        url = proof.url or url
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            **proof.headers,
            **self._proofs.prove(proof_key, "POST", url),
        }
        content = "&".join(filter(None, (body, urlencode(proof.fields)))).encode()
        answer = await self._egress.fetch(
            "POST", url, headers=headers, content=content, timeout=timeout, identity=proof.identity
        )
        if proof_key is not None:
            self._proofs.learn(url, answer.headers)
        return answer


def _heard(authenticate: Authenticate, refused: Sequence[str], used: Authenticate, answer: Answer) -> Answer:
    """Say how it went, where one credential was certainly taken."""
    if authenticate.heard is not None and gives_something(answer):
        authenticate.heard(refused, used.credential)
    return answer
