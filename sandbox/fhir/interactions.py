"""What each call means, and which room answers it: the FHIR server's table of contents."""

from sandbox.fhir.batches import process_bundle
from sandbox.fhir.exchange import Answer, Call
from sandbox.fhir.exports import is_export
from sandbox.fhir.outcome import FhirError, method_not_allowed
from sandbox.fhir.parameters import PARAMETERS
from sandbox.fhir.reading import history, read, vread
from sandbox.fhir.searching import everything, search_type, turn_page
from sandbox.fhir.server import Server
from sandbox.fhir.writing import create, delete, update


def answer(server: Server, call: Call) -> Answer:
    """Act on one call; raises FhirError for every refusal."""
    if is_export(call):
        return server.exports.answer(call)
    if call.segments and call.segments[0] not in PARAMETERS:
        raise FhirError(404, "not-supported", f"'{call.segments[0]}' is not a resource type served here.")
    if "xml" in dict(call.query).get("_format", ""):
        raise FhirError(406, "not-supported", "This server answers in application/fhir+json.")
    return _answer_resource(server, call)


def _answer_resource(server: Server, call: Call) -> Answer:
    match call.segments:
        case ():
            return _answer_system(server, call)
        case (type_,) | (type_, "_search"):
            return _answer_type(server, call, type_)
        case type_, id_:
            return _answer_instance(server, call, (type_, id_))
    if call.method != "GET":
        raise method_not_allowed(call.method, "GET")
    match call.segments:
        case "Patient", id_, "$everything":
            return everything(server, call, id_)
        case type_, id_, "_history":
            return history(server, call, (type_, id_))
        case type_, id_, "_history", number:
            return vread(server, call, (type_, id_), number)
    raise FhirError(404, "not-supported", "There is no such interaction.")


def _answer_system(server: Server, call: Call) -> Answer:
    match call.method:
        case "GET":
            return turn_page(server, call)
        case "POST":
            return process_bundle(server, call, answer)
    raise method_not_allowed(call.method, "GET, POST")


def _answer_type(server: Server, call: Call, type_: str) -> Answer:
    by_form = call.segments[-1] == "_search"
    match call.method:
        case "GET" if not by_form:
            return search_type(server, call, type_)
        case "POST":
            return search_type(server, call, type_) if by_form else create(server, call, type_)
    raise method_not_allowed(call.method, "POST" if by_form else "GET, POST")


def _answer_instance(server: Server, call: Call, key: tuple[str, str]) -> Answer:
    match call.method:
        case "GET":
            return read(server, call, key)
        case "PUT":
            return update(server, call, key)
        case "DELETE":
            return delete(server, call, key)
    raise method_not_allowed(call.method, "GET, PUT, DELETE")
