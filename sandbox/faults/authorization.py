"""What goes wrong at the authorization server."""

from sandbox.faults.fault import Fault
from sandbox.faults.id_token import ID_TOKEN_FAULTS
from sandbox.faults.token import TOKEN_FAULTS, error

AUTHORIZATION_FAULTS = (
    *TOKEN_FAULTS,
    *ID_TOKEN_FAULTS,
    Fault("authorize_error", "authorize", "refuse", "redirect back with an error",
          {"error": "access_denied", "error_description": "a fault was armed", "error_uri": ""}),
    Fault("authorize_auto_approve", "authorize.pages", "skip", "no pages; this patient, or the first", {"patient": ""}),
    Fault("authorize_wrong_state", "authorize.answer", "edit", "redirect back with another state",
          {"set": {"state": "not-the-state"}, "drop": []}),
    Fault("authorize_wrong_iss", "authorize.answer", "edit", "redirect back with another iss (RFC 9207)",
          {"set": {"iss": "https://issuer.invalid"}, "drop": []}),
    Fault("authorize_no_iss", "authorize.answer", "edit", "redirect back without iss", {"set": {}, "drop": ["iss"]}),
    Fault("code_size", "code.size", "size", "a code of this many random bytes (nasty case 16)", {"bytes": 6000}),
    Fault("code_jwt", "code.jwt", "shape", "a code that looks like a JWT (EP-19)"),
    Fault("code_ending", "code.ending", "ending", "a code that ends in these characters (TK-01)",
          {"ending": "+/=% &?#"}),
    Fault("launch_size", "launch.size", "size", "a launch of this many random bytes (AL-06)", {"bytes": 3000}),
    Fault("par_503", "par", "oauth_error", "503 to a pushed request, not processed",
          error(503, "temporarily_unavailable", retry_after=1)),
    Fault("introspect_503", "introspect", "oauth_error", "503 to an introspection, not processed",
          error(503, "temporarily_unavailable", retry_after=1)),
    Fault("revoke_503", "revoke", "oauth_error", "503 with Retry-After to a revocation, not processed (IN-06)",
          error(503, "temporarily_unavailable", retry_after=1)),
    Fault("revoke_unsupported", "revoke", "oauth_error", "unsupported_token_type, not processed (OA-10)",
          error(400, "unsupported_token_type")),
    Fault("jwks_down", "jwks", "html", "the id_token keys cannot be fetched", {"status": 503}),
)  # fmt: skip
