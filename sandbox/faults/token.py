"""What goes wrong at the token endpoint, and what its answers can be like."""

from typing import Any

from sandbox.faults.fault import FOREVER, Fault

_CONTEXT = ["patient", "encounter", "need_patient_banner", "smart_style_url", "__epic.dstu2.patient"]
_URN = "https://authorization.invalid/errors/urn%3Asandbox%3Aerror%3Aoauth2%3Ainvalid-client/instances/1f3a"


def error(status: int, code: str, **more: Any) -> dict[str, Any]:
    """Return the parameters of an `oauth_error`."""
    return {"status": status, "error": code, "error_description": "a fault was armed", **more}


TOKEN_FAULTS = (
    Fault("token_500", "token", "oauth_error", "500, not processed", error(500, "server_error")),
    Fault("token_503", "token", "oauth_error", "503 with Retry-After, not processed",
          error(503, "temporarily_unavailable", retry_after=1)),
    Fault("token_429", "token", "oauth_error", "429 with Retry-After, not processed",
          error(429, "slow_down", retry_after=1)),
    Fault("token_html", "token", "html", "200 with an HTML page, not processed", {"status": 200}),
    Fault("token_text", "token", "text", "403 in plain text, as gateways answer, not processed (OA-04)",
          {"status": 403, "text": "Forbidden by the gateway"}),
    Fault("token_invalid_grant", "token", "oauth_error", "invalid_grant, not processed", error(400, "invalid_grant")),
    Fault("token_invalid_client", "token", "oauth_error", "invalid_client, not processed",
          error(401, "invalid_client")),
    Fault("token_error_null", "token", "json", "invalid_client whose description is null, not processed (EP-17)",
          {"status": 401, "document": {"error": "invalid_client", "error_description": None}}),
    Fault("token_error_uri", "token", "json", "an error_uri and no description, not processed (OR-03)",
          {"status": 400, "document": {"error": "invalid_client", "error_uri": _URN}}),
    Fault("token_drop_before", "token", "drop_before", "connection closed, not processed"),
    Fault("token_drop", "token", "drop", "processed, then the connection is closed without an answer"),
    Fault("token_timeout", "token", "silence", "processed, then no answer for some seconds", {"seconds": 30}),
    Fault("token_hold", "token", "hold", "processed, then answered after some seconds", {"seconds": 1}),
    Fault("token_delay", "token.delay", "delay", "processed only after some seconds", {"seconds": 1}),
    Fault("token_members", "token.answer", "edit", "answer with members set or dropped", {"set": {}, "drop": []}),
    Fault("token_type", "token.answer", "set", "this token_type: in odd case, or one nobody knows (TR-02)",
          {"token_type": "bEARER"}),
    Fault("token_no_expires_in", "token.answer", "edit", "answer without expires_in",
          {"set": {}, "drop": ["expires_in"]}),
    Fault("token_expires_in", "token.answer", "set", "this expires_in (nasty case 1)", {"expires_in": 0}),
    Fault("token_expires_in_string", "token.answer", "text", "expires_in as a string", {"member": "expires_in"}),
    Fault("token_banner_string", "token.answer", "text", "need_patient_banner as a string (CX-05)",
          {"member": "need_patient_banner"}),
    Fault("token_no_scope", "token.answer", "edit", "answer without scope", {"set": {}, "drop": ["scope"]}),
    Fault("token_scope", "token.answer", "set", "answer with this scope", {"scope": ""}),
    Fault("token_scope_narrower", "token.answer", "scope_narrower", "scope without its last clinical one (TR-04)"),
    Fault("token_scope_wider", "token.answer", "scope_wider", "scope with more than was asked (TR-04)"),
    Fault("token_scope_split", "token.answer", "scope_split", "scope with one for each letter (TR-04)"),
    Fault("token_scope_twice", "token.answer", "scope_twice", "scope with everything twice (nasty case 6)"),
    Fault("token_scope_odd_case", "token.answer", "scope_odd_case", ".Read beside .read (nasty case 6)"),
    Fault("token_scope_v1", "token.answer", "scope_v1", "scope in SMART v1, whatever was asked (Q9)"),
    Fault("token_scope_words", "token.answer", "scope_words", "scope with words that are not SMART (nasty case 6)"),
    Fault("token_scope_blanks", "token.answer", "scope_blanks", "scope with blanks before, between and after (OA-02)"),
    Fault("token_authorization_details", "token.answer", "details",
          "authorization_details for this server and that one (TR-10)", {"location": "https://elsewhere.invalid/fhir"}),
    Fault("token_context_on_refresh", "token.authorization_code.answer", "edit",
          "launch context on refreshes only (CX-11)", {"set": {}, "drop": _CONTEXT}, FOREVER),
    Fault("token_refresh_patient", "token.refresh_token.answer", "set", "a refresh names another patient (CX-11)",
          {"patient": "another-patient"}),
    Fault("token_no_refresh_token", "token.refresh_token", "withhold", "no new refresh token; an old one stays good"),
    Fault("token_refresh_id_token", "token.refresh_id_token", "identify",
          "a refresh gives an id_token too, of this sub or the user's", {"sub": ""}),
    Fault("token_size", "token.size", "size", "an access token of this many random bytes", {"bytes": 6000}),
    Fault("token_jwt", "token.jwt", "shape", "an access token that looks like a JWT (EP-19)"),
    Fault("token_ending", "token.ending", "ending", "an access token that ends in these characters (RFC 6750 §2.1)",
          {"ending": "+/=="}),
    Fault("token_lifetime", "token.lifetime", "lifetime", "access tokens live for this many seconds",
          {"seconds": 60}, FOREVER),
    Fault("dpop_nonce", "dpop.nonce", "renew", "the DPoP nonce ends; the next proof must carry a new one (OA-23)"),
)  # fmt: skip
