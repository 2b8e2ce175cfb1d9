"""What exports take."""

from fastapi import APIRouter

from broker.app.rooms import Rooms
from broker.ehr.bulk_server import BulkServer
from broker.flows.bulk.abandon import EndAbandoned
from broker.flows.bulk.admit import Admit
from broker.flows.bulk.answers import ExportAnswers, telling_nonce
from broker.flows.bulk.ask import AskEhrBulk
from broker.flows.bulk.begin import BeginAtEhr
from broker.flows.bulk.cancel import CancelExport, EndAtEhr
from broker.flows.bulk.file import ExportFile
from broker.flows.bulk.kick_off import KickOff
from broker.flows.bulk.status import Status
from broker.flows.bulk.trail import BulkTrail
from broker.flows.check_dpop import CheckDpop
from broker.web.arrival import Arrivals
from broker.web.bulk import bulk_routes
from broker.web.fhir import FhirProxy


def export_routes(rooms: Rooms, check_dpop: CheckDpop, arrivals: Arrivals) -> APIRouter:
    """Build the journeys of exports, and the routes that lead to them."""
    directory, jobs, files, clock = rooms.directory, rooms.exports, rooms.exports.files, rooms.clock
    trail = BulkTrail(rooms.audit)
    admit = Admit(directory, rooms.handles, check_dpop, jobs, rooms.fair_use, rooms.audit)
    ask = AskEhrBulk(directory, rooms.refresher, BulkServer(rooms.egress, rooms.dpop_proofs), rooms.fair_use)
    answers, end_at_ehr = ExportAnswers(directory, files), EndAtEhr(ask, trail)
    begin = BeginAtEhr(directory, jobs, ask, end_at_ehr, trail, clock)
    return bulk_routes(
        KickOff(directory, admit, jobs, begin, answers, trail, clock, rooms.entropy),
        Status(directory, admit, jobs, files, begin, ask, answers, trail, clock),
        ExportFile(directory, admit, jobs, files, ask, trail, clock),
        CancelExport(admit, jobs, files, end_at_ehr, trail),
        lambda journey: FhirProxy(telling_nonce(journey, check_dpop), arrivals),
    )


def end_abandoned(rooms: Rooms) -> EndAbandoned:
    """Build what ends exports that nobody asks for any more."""
    return EndAbandoned(
        rooms.directory,
        rooms.exports,
        rooms.exports.files,
        rooms.grants,
        rooms.refresher,
        BulkServer(rooms.egress, rooms.dpop_proofs),
        BulkTrail(rooms.audit),
        rooms.clock,
    )
