"""Ask the EHR about an export, with its token: renewed when it is due, and when the EHR refuses it (PX-08)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from broker.apps import Directory
from broker.bulk.jobs import turn_seconds
from broker.egress import StreamedAnswer
from broker.ehr.bulk_server import BulkServer, Credentials
from broker.ehr.fhir_server import FHIR_JSON, is_json
from broker.ehr.rewriting import SecretRemover, may_be_utf_8
from broker.errors import EhrAnswerLost, EhrMisbehaved, ReauthorizationRequired
from broker.fair_use import FairUse
from broker.flows.relay import FhirAnswer
from broker.grants import Grant
from broker.origins import origin
from broker.policy import Permit
from broker.refresh.current_token import CurrentToken, Refresher

TOLD_BYTES: Final = 256 << 10
"""Most of an OperationOutcome that is read."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer of the EHR, all of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    without_token: Callable[[str], str] = str
    """Takes the token out of a text; the body has none any more."""

    def told(self, name: str) -> str | None:
        """Return a header as an app may see it (HB-07)."""
        said = self.headers.get(name)
        return None if said is None else self.without_token(said)

    @property
    def export_status(self) -> int:
        """How the export stands: the status, or what a header says of it in its stead (BD-04)."""
        said = self.headers.get("x-export-status", "").strip()[:3]
        return int(said) if self.status == 200 and said.isascii() and said.isdigit() else self.status

    @property
    def is_outcome(self) -> bool:
        """Whether the body can be passed on: JSON in UTF-8 (OA-04)."""
        return is_json(self.headers) and may_be_utf_8(self.body)

    def passed_on(self, **headers: str) -> FhirAnswer:
        """Return it for the app: status and OperationOutcome. Raises `EhrMisbehaved` for HTML (OA-04) and redirects."""
        status = self.export_status
        if not 400 <= status < 600 or (self.body and not self.is_outcome):
            raise EhrMisbehaved(f"the EHR answered {status} with something that is no OperationOutcome (OA-04)")
        return FhirAnswer(status, {"content-type": FHIR_JSON, **headers}, once(self.body))


@dataclass(frozen=True, slots=True)
class AskEhrBulk:
    """Sends with a permit; the token goes to the FHIR base's origin, and to hosts that the operator named (PX-03)."""

    directory: Directory
    refresher: Refresher
    server: BulkServer
    fair_use: FairUse

    async def hear(
        self,
        permit: Permit,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
        limit: int = TOLD_BYTES,
    ) -> Heard:
        """Send a request and read the whole answer, without the token if it is echoed (HB-07).

        `limit` is the most that it may be, in bytes, where the export is complete; `TOLD_BYTES` where it is not.
        Raises `EhrError`, `ReauthorizationRequired`.
        """
        try:
            async with (
                asyncio.timeout(turn_seconds(self._timeout(permit.grant))),
                self._with_token(permit, method, url, headers, content) as (answer, token),
            ):
                remover, body = SecretRemover(token.access_token), bytearray()
                heard = Heard(answer.status, answer.headers, b"", remover.text)
                most = limit if heard.export_status == 200 else TOLD_BYTES
                async for chunk in answer.chunks:
                    body += remover.feed(chunk)
                    if len(body) > most:
                        raise EhrMisbehaved(f"an answer about an export of more than {most} bytes")
                return replace(heard, body=bytes(body) + remover.finish())
        except TimeoutError:
            raise EhrAnswerLost("an answer about an export that does not end") from None

    @asynccontextmanager
    async def file(
        self, permit: Permit, url: str, *, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[StreamedAnswer, CurrentToken]]:
        """Get a file with the token, and without it from wherever the EHR redirects to. Raises as `hear`."""
        async with self._with_token(permit, "GET", url, headers, None, is_file=True) as (answer, token):
            yield answer, token

    @asynccontextmanager
    async def _with_token(
        self,
        permit: Permit,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None,
        *,
        is_file: bool = False,
    ) -> AsyncIterator[tuple[StreamedAnswer, CurrentToken]]:
        """Send a request; one that got a 401 was not processed, so it is sent once more, whatever it is (PX-08)."""
        timeout, origins = self._timeout(permit.grant), self.token_origins(permit.grant)
        await self.fair_use.admit(permit.handle)
        token = await self.refresher.current_token(permit)
        async with self.fair_use.place(permit.handle, "background"), AsyncExitStack() as open_answers:
            for is_last in (False, True):
                credentials = Credentials(token.access_token, token.proof_key, origins)
                sent = (
                    self.server.fetch(url, credentials=credentials, headers=headers, timeout=timeout)
                    if is_file
                    else self.server.send(
                        method, url, credentials=credentials, headers=headers, content=content, timeout=timeout
                    )
                )
                answer = await open_answers.enter_async_context(sent)
                if answer.status != 401:
                    yield answer, token
                    return
                await open_answers.aclose()
                if not is_last:
                    token = await self.refresher.replace_refused(permit, token)
        raise ReauthorizationRequired(f"the EHR refuses the fresh token of grant {permit.grant.tag} (PX-08)")

    @asynccontextmanager
    async def file_without_token(
        self, permit: Permit, url: str, *, headers: Mapping[str, str]
    ) -> AsyncIterator[StreamedAnswer]:
        """Get a file that needs no token, or may not have it (BD-10). It takes a place like any other.

        At a host of the EHR's own it counts as a request to the EHR, and waits while that wants to be left alone.
        Raises `TooManyRequests`, `EhrError`.
        """
        if origin(url) in self.token_origins(permit.grant):
            await self.fair_use.admit(permit.handle)
        timeout = self._timeout(permit.grant)
        async with (
            self.fair_use.place(permit.handle, "background"),
            self.server.fetch(url, credentials=None, headers=headers, timeout=timeout) as answer,
        ):
            yield answer

    def token_origins(self, grant: Grant) -> Collection[str]:
        """Return where the grant's token may go."""
        return self.directory.token_origins(grant.terms.ehr, grant.terms.fhir_base)

    def require_askable(self, grant: Grant, url: str) -> None:
        """Raise `EhrMisbehaved` for what could never be asked: no token may go there, or no call (PX-03, DS-15)."""
        if origin(url) not in self.token_origins(grant):
            raise EhrMisbehaved("a status or manifest lies where no token may go; see bulk_file_hosts (PX-03)")
        self.server.egress.require_callable(url)

    def _timeout(self, grant: Grant) -> float:
        return self.directory.ehr(grant.terms.ehr).fhir_timeout


async def once(body: bytes) -> AsyncIterator[bytes]:
    """Give a body that is at hand as an answer's."""
    if body:
        yield body
