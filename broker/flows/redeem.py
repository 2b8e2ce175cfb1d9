"""Whose handle a FHIR request shows: how whatever is asked below `/fhir/{ehr}` with a handle begins."""

from broker.apps import Directory
from broker.flows.check_dpop import CheckDpop
from broker.flows.fhir_request import FhirRequest
from broker.grants import Grant
from broker.handles import Handle, Handles, require_well_formed


async def redeem(
    request: FhirRequest, directory: Directory, handles: Handles, check_dpop: CheckDpop
) -> tuple[Handle, Grant]:
    """Return the handle and its grant, with the proof that came along used up (HB-03), and tell whose it is.

    Raises `InvalidHandle`, `InvalidRequest`, `InvalidDpopProof`, `NotFound` for an EHR, `StoreUnavailable`.
    """
    request.require_sound()
    directory.ehr(request.ehr)
    proof = None
    if request.proofs is not None:
        require_well_formed(request.handle)  # before anything is verified
        proof = check_dpop.at_fhir(request.proofs, method=request.method, path=request.path, handle=request.handle)
    handle, grant = await handles.redeem(request.handle, request.ehr, proof)
    request.tell_app(handle.app)
    return handle, grant
