"""One file of an export, streamed from wherever its manifest says that it lies (BD-09 to BD-12, OR-08).

The token goes along where the manifest requires one and the host is the EHR's own, or approved in the settings; it is
renewed when it is due, so the last file comes hours later as the first one did. Whatever else a manifest names is
fetched without it.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from broker.apps import Directory
from broker.bulk import FileLists, Job, Jobs, ListedFile
from broker.bulk.job import no_such_export
from broker.bulk.waits import next_wait
from broker.clock import Clock
from broker.egress import StreamedAnswer
from broker.ehr.packed import passed_packed
from broker.ehr.rewriting import SecretRemover
from broker.errors import BrokerError, EhrError, EhrMisbehaved, EhrUnreachable, NotFound
from broker.flows.bulk.admit import Admit
from broker.flows.bulk.ask import AskEhrBulk
from broker.flows.bulk.trail import BulkTrail
from broker.flows.fhir_request import FhirRequest
from broker.flows.relay import FhirAnswer, require_readable, takes_gzip
from broker.interactions.export import NDJSON
from broker.origins import origin
from broker.policy import Permit
from broker.secret import Secret

_NAME: Final = re.compile(r"(\d{1,4})-(\d{1,9})-(\d{1,6})", re.ASCII)
_GONE: Final = "The EHR no longer has this file under this name. Ask for the status of the export again."
_HTML: Final = re.compile(r"html|svg|javascript|[/+]xml")


@dataclass(frozen=True, slots=True)
class ExportFile:
    """Gives files to apps."""

    directory: Directory
    admit: Admit
    jobs: Jobs
    files: FileLists
    ask: AskEhrBulk
    trail: BulkTrail
    clock: Clock

    @asynccontextmanager
    async def __call__(self, request: FhirRequest, job_id: str, name: str) -> AsyncIterator[FhirAnswer]:
        """Give the file while it arrives. Raises a `BrokerError`."""
        admitted = await self.admit.job(request, "bulk.file", job_id, method="GET")
        permit, job = admitted.permit, admitted.what.job
        file = await self._find(job, name)
        await self.jobs.postpone(job, abandoned_at=self.clock() + self.directory.ehr(job.ehr).bulk_abandon_seconds)
        self.trail.allowed("bulk.file", permit, job, request.request_id)
        try:
            async with AsyncExitStack() as open_answers:
                encoding = "gzip" if takes_gzip(request.headers) else "identity"
                headers = {"accept": NDJSON, "accept-encoding": encoding}
                answer, token = await self._open(permit, file, headers, open_answers)
                self.trail.allowed("bulk.answer", permit, job, request.request_id, status=answer.status)
                yield relay_file(answer, token)
        except BrokerError as error:
            self.trail.failed("bulk.answer", permit, job, request.request_id, error)
            raise

    async def _find(self, job: Job, name: str) -> ListedFile:
        """Return the file of that name, which is its manifest's number, version and its place in there."""
        found = _NAME.fullmatch(name)
        number, version, index = map(int, found.groups()) if found else (-1, -1, -1)
        listing = job.listings[number] if 0 <= number < len(job.listings) else None
        if listing is None or not listing.is_known or index >= listing.files:
            raise no_such_export(f"export {job.id} has no such file")
        if version != listing.version:
            raise NotFound(f"export {job.id} lists other files by now", public=_GONE)
        return await self.files.file(job, number, listing, index)

    async def _open(
        self, permit: Permit, file: ListedFile, headers: Mapping[str, str], open_answers: AsyncExitStack
    ) -> tuple[StreamedAnswer, Secret | None]:
        """Return the answer, and the token that went along."""
        if file.needs_token and origin(file.url) in self.ask.token_origins(permit.grant):
            answer, token = await open_answers.enter_async_context(self.ask.file(permit, file.url, headers=headers))
            _require_file(answer, with_token=True)
            return answer, token.access_token
        sent = self.ask.file_without_token(permit, file.url, headers=headers)
        answer = await open_answers.enter_async_context(sent)
        _require_file(answer, with_token=False)
        return answer, None


def _require_file(answer: StreamedAnswer, *, with_token: bool) -> None:
    """Raise for what is no file."""
    status = answer.status
    if status in {404, 410}:
        raise NotFound(f"a file was answered {status}", public=_GONE)
    if status in {429, 502, 503, 504}:
        raise EhrUnreachable(f"a file was answered {status}", retry_after=next_wait(answer.headers, 0))
    if status in {400, 401, 403}:
        cause = "" if with_token else ": links may have expired, or its host wants the token (bulk_file_hosts)"
        raise EhrError(f"a file was answered {status}{cause}", public=_GONE)
    if status != 200:
        raise EhrMisbehaved(f"a file was answered {status}")
    if _HTML.search(answer.headers.get("content-type", "").lower()):
        raise EhrMisbehaved("a file is a web page, or XML (OA-04)")


def relay_file(answer: StreamedAnswer, token: Secret | None) -> FhirAnswer:
    """Pass the file on: packed where it was asked for so, and without the token, should the EHR echo it (HB-07).

    What was packed unasked has been unpacked by now. Raises `EhrMisbehaved`.
    """
    require_readable(answer)
    headers, chunks = {"content-type": NDJSON}, answer.chunks
    if answer.is_packed:
        headers["content-encoding"] = "gzip"
    if token is not None:
        chunks = passed_packed(chunks, token) if answer.is_packed else _without(chunks, token)
    return FhirAnswer(200, headers, chunks)


async def _without(chunks: AsyncIterator[bytes], token: Secret) -> AsyncIterator[bytes]:
    remover = SecretRemover(token)
    async for chunk in chunks:
        if out := remover.feed(chunk):
            yield out
    yield remover.finish()
