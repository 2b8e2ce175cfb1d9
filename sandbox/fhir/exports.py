"""Bulk Data: `$export` of the system, of all patients or of a Group, its status, and its files (BD-01 to BD-15)."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

from sandbox.fhir.exchange import Answer, Call, parse_resource
from sandbox.fhir.outcome import FhirError, bad_request, forbidden, method_not_allowed
from sandbox.fhir.parameters import PARAMETERS
from sandbox.fhir.repository import Repository
from sandbox.population.elements import Resource, instant

JOBS = "BulkRequest"
"""The first part of the paths of jobs and files, as at Epic."""
KEPT_SECONDS = 3600
RETRY_AFTER = 1
"""Seconds between two looks at a job; the second finds it complete."""
NDJSON = "application/fhir+ndjson"
_FORMATS = {NDJSON, "application/ndjson", "ndjson"}
_LINES_AT_ONCE = 64
_LINE_BYTES = 1024
_KNOWN = {"_type", "_since", "_outputFormat", "allowPartialManifests"}


@dataclass(frozen=True, slots=True)
class Presigned:
    """Files that lie elsewhere, behind URLs that need no token (OR-08)."""

    put: Callable[[bytes, str], str]
    """Stores content of a media type and returns its URL."""
    requires_access_token: bool
    """What the manifest says nevertheless."""


@dataclass(frozen=True, slots=True)
class MadeUp:
    """Large files that an export holds besides, of Observations that are made while they are sent."""

    files: int = 0
    lines: int = 0

    def content(self, number: int) -> Iterator[bytes]:
        """Give one of the files, some lines at a time: always the same ones."""
        for start in range(0, self.lines, _LINES_AT_ONCE):
            yield b"".join(_line(number, n) for n in range(start, min(start + _LINES_AT_ONCE, self.lines)))


@dataclass(slots=True)
class Job:
    """One export; what it holds was settled when it was begun."""

    client_id: str
    request: str
    begun: datetime
    files: list[tuple[str, bytes]]
    """Type and NDJSON."""
    made_up: MadeUp
    looks_left: int = 1
    """How often the status still says that it is running."""


def is_export(call: Call) -> bool:
    """Say whether a call is about bulk data."""
    match call.segments:
        case ("$export",) | ("Patient", "$export") | ("Group", _, "$export"):
            return True
    return call.segments[:1] == (JOBS,)


class Exports:
    """The jobs of one FHIR server; each belongs to the client that began it (BD-14)."""

    def __init__(
        self,
        repository: Repository,
        base_url: Callable[[], str],
        clock: Callable[[], float],
        new_id: Callable[[], str],
        one_at_a_time: Callable[[], bool],
        presigned: Callable[[str], Presigned | None],
        in_parts: Callable[[str], bool],
        made_up: Callable[[], MadeUp],
    ) -> None:
        self._repository = repository
        self._base_url = base_url
        self._clock = clock
        self._new_id = new_id
        self._one_at_a_time = one_at_a_time
        self._presigned = presigned
        self._in_parts = in_parts
        self._made_up = made_up
        self._jobs: dict[str, Job] = {}

    def answer(self, call: Call) -> Answer:
        """Act on one call; raises FhirError for every refusal."""
        if not any(scope.startswith("system/") for scope in call.rights.access.scopes):
            raise forbidden("Bulk data needs system/ scopes.")
        match call.segments:
            case (first, id_) if first == JOBS:
                return self._status(call, id_)
            case (first, id_, number) if first == JOBS:
                return self._file(call, id_, number)
        return self._kick_off(call)

    def _kick_off(self, call: Call) -> Answer:
        if call.method not in {"GET", "POST"}:
            raise method_not_allowed(call.method, "GET, POST")
        if "respond-async" not in call.headers.get("prefer", ""):
            raise bad_request("Send Prefer: respond-async (BD-01).")
        running = any(j.looks_left and j.client_id == call.rights.access.client_id for j in self._jobs.values())
        if running and self._one_at_a_time():
            raise FhirError(429, "throttled", "An export of this client is running (OR-08).", {"Retry-After": "120"})
        pairs = _parameters(call)
        query = f"?{urlencode(call.query)}" if call.query else ""
        id_ = self._new_id()
        self._jobs[id_] = Job(
            client_id=call.rights.access.client_id,
            request=f"{self._base_url()}/{'/'.join(call.segments)}{query}",
            begun=datetime.fromtimestamp(self._clock(), UTC),
            files=list(self._files(call, pairs)),
            made_up=self._made_up(),
        )
        return Answer(202, headers={"Content-Location": f"{self._base_url()}/{JOBS}/{id_}"})

    def _files(self, call: Call, pairs: list[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
        given = [value for name, value in pairs if name == "_type"]
        if len(given) > 1 and self._one_at_a_time():
            raise bad_request("_type is given once, with commas (OR-08).")
        named = {type_ for value in given for type_ in value.split(",")}
        for type_ in sorted(named):
            call.rights.require("r", type_)
        since = next((value for name, value in pairs if name == "_since"), "")
        by_type: dict[str, list[Resource]] = {}
        for resource in self._scope(call.segments):
            type_ = resource["resourceType"]
            is_new = not since or _moment(resource["meta"]["lastUpdated"]) > _moment(since)
            if is_new and (not named or type_ in named) and call.rights.allow("r", resource):
                by_type.setdefault(type_, []).append(resource)
        yield from ((type_, _ndjson(resources)) for type_, resources in by_type.items())

    def _scope(self, segments: tuple[str, ...]) -> Iterator[Resource]:
        match segments:
            case ("$export",):
                for type_ in PARAMETERS:
                    yield from self._repository.every(type_)
            case ("Patient", _):
                for patient in self._repository.every("Patient"):
                    yield from self._repository.chart(patient["id"])
            case (_, id_, _):
                for member in self._repository.read(("Group", id_)).get("member", ()):
                    yield from self._repository.chart(member["entity"]["reference"].removeprefix("Patient/"))

    def _status(self, call: Call, id_: str) -> Answer:
        job = self._own(call, id_)
        if call.method == "DELETE":
            del self._jobs[id_]
            return Answer(202)
        if call.method != "GET":
            raise method_not_allowed(call.method, "GET, DELETE")
        if job.looks_left:
            job.looks_left -= 1
            return Answer(202, headers={"X-Progress": "in progress", "Retry-After": str(RETRY_AFTER)})
        expires = datetime.fromtimestamp(self._clock() + KEPT_SECONDS, UTC)
        return Answer(
            200,
            self._part(call, id_, self._manifest(id_, job)),
            {"Expires": format_datetime(expires, usegmt=True)},
            media_type="application/json",
        )

    def _part(self, call: Call, id_: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Return the manifest, or a part of one file with a link to the next (BD-17)."""
        if not self._in_parts(call.rights.access.client_id):
            return manifest
        number = int(dict(call.query).get("part", "0"))
        more = number + 1 < len(manifest["output"])
        link = {"relation": "next", "url": f"{self._base_url()}/{JOBS}/{id_}?part={number + 1}"}
        return {**manifest, "output": manifest["output"][number : number + 1], **({"link": [link]} if more else {})}

    def _manifest(self, id_: str, job: Job) -> dict[str, Any]:
        presigned = self._presigned(job.client_id)
        own = (f"{self._base_url()}/{JOBS}/{id_}/{number}" for number in range(len(job.files)))
        urls = (presigned.put(content, NDJSON) for _, content in job.files) if presigned else own
        return {
            "transactionTime": instant(job.begun),
            "request": job.request,
            "requiresAccessToken": presigned.requires_access_token if presigned else True,
            "output": [
                *(
                    {"type": type_, "url": url, "count": content.count(b"\n")}
                    for (type_, content), url in zip(job.files, urls, strict=True)
                ),
                *(
                    {"type": "Observation", "url": f"{self._base_url()}/{JOBS}/{id_}/{n}", "count": job.made_up.lines}
                    for n in range(len(job.files), len(job.files) + job.made_up.files)
                ),
            ],
            "deleted": [],
            "error": [],
        }

    def _file(self, call: Call, id_: str, number: str) -> Answer:
        job = self._own(call, id_)
        files, made_up = job.files, job.made_up
        if call.method != "GET":
            raise method_not_allowed(call.method, "GET")
        if not number.isascii() or not number.isdigit() or int(number) >= len(files) + made_up.files:
            raise FhirError(404, "not-found", "There is no such file.")
        if int(number) >= len(files):
            return Answer(200, stream=made_up.content(int(number)), media_type=NDJSON)
        return Answer(200, content=files[int(number)][1], media_type=NDJSON)

    def _own(self, call: Call, id_: str) -> Job:
        job = self._jobs.get(id_)
        if job is None or job.client_id != call.rights.access.client_id:
            raise FhirError(404, "not-found", "There is no such export.")
        return job


def _parameters(call: Call) -> list[tuple[str, str]]:
    """Return the parameters of a GET's query or of a POST's Parameters resource (BD-02)."""
    pairs = list(call.query)
    if call.method == "POST":
        parts = parse_resource(call, "Parameters").get("parameter", [])
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise bad_request("parameter is a list of objects.", "structure")
        pairs += [(str(part.get("name")), _value(part)) for part in parts]
    if unknown := sorted({name for name, _ in pairs} - _KNOWN):
        raise bad_request(f"An export is not limited by: {', '.join(unknown)}.", "not-supported")
    if any(name == "_outputFormat" and value not in _FORMATS for name, value in pairs):
        raise bad_request(f"_outputFormat is {NDJSON}.", "not-supported")
    return pairs


def _value(part: dict[str, Any]) -> str:
    return next((str(value) for name, value in part.items() if name.startswith("value")), "")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise bad_request("_since is an instant, with its offset.", "value") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _ndjson(resources: Iterable[Resource]) -> bytes:
    return b"".join(json.dumps(resource, separators=(",", ":")).encode() + b"\n" for resource in resources)


def _line(number: int, n: int) -> bytes:
    """Return one made-up Observation, a kilobyte with the end of its line."""
    head = f'{{"resourceType":"Observation","id":"made-up-{number}-{n}","status":"final","note":[{{"text":"'.encode()
    tail = b'"}]}\n'
    return head + b"x" * (_LINE_BYTES - len(head) - len(tail)) + tail
