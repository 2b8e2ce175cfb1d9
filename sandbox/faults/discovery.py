"""What goes wrong while a client finds out where things are."""

from collections.abc import Iterator

from sandbox.faults.fault import FOREVER, Fault

_MISSING = (
    ("token_endpoint", "DS-03"),
    ("capabilities", "DS-03"),
    ("grant_types_supported", "DS-03"),
    ("authorization_endpoint", "DS-04"),
    ("issuer", "DS-05"),
    ("jwks_uri", "DS-05"),
    ("code_challenge_methods_supported", "DS-06"),
)
_SMART, _OPENID = "smart_configuration", "openid_configuration"


def _missing() -> Iterator[Fault]:
    for member, source in _MISSING:
        says = f"smart-configuration without {member} ({source})"
        yield Fault(f"discovery_no_{member}", f"{_SMART}.answer", "edit", says, {"set": {}, "drop": [member]})


DISCOVERY_FAULTS = (
    Fault("discovery_404", _SMART, "outcome", "smart-configuration is missing", {"status": 404}),
    Fault("discovery_500", _SMART, "outcome", "smart-configuration fails", {"status": 500}),
    Fault("discovery_html", _SMART, "html", "smart-configuration is a web page", {"status": 200}),
    Fault("discovery_list", _SMART, "json", "smart-configuration is JSON, but not an object (DS-14)",
          {"status": 200, "document": ["not an object"]}),
    Fault("discovery_drop", _SMART, "drop_before", "connection closed instead of smart-configuration"),
    Fault("discovery_delay", f"{_SMART}.delay", "delay", "smart-configuration takes some seconds", {"seconds": 1}),
    Fault("discovery_members", f"{_SMART}.answer", "edit", "smart-configuration with members set or dropped",
          {"set": {}, "drop": []}),
    *_missing(),
    Fault("discovery_pkce_plain", f"{_SMART}.answer", "edit", "plain is the only PKCE method (DS-06)",
          {"set": {"code_challenge_methods_supported": ["plain"]}, "drop": []}),
    Fault("discovery_pkce_both", f"{_SMART}.answer", "edit", "plain is listed beside S256 (DS-06)",
          {"set": {"code_challenge_methods_supported": ["plain", "S256"]}, "drop": []}),
    Fault("discovery_relative", f"{_SMART}.answer", "relative",
          "endpoints are relative, after this prefix; `../../../` leaves out the slash (DS-07)", {"prefix": "/"}),
    Fault("discovery_token_endpoint_moved", f"{_SMART}.answer", "edit",
          "the token endpoint lies on another host, a private address (DS-15)",
          {"set": {"token_endpoint": "http://10.0.0.5/oauth2/token"}, "drop": []}),
    Fault("discovery_internal_host", f"{_SMART}.answer", "move",
          "all endpoints are at an origin nobody outside knows (OT-01, athenaFlex #373)",
          {"origin": "https://ehr.internal"}),
    Fault("discovery_per_client", "endpoints", "per_client",
          "without Epic-Client-ID of a registered client, discovery names endpoints that do not exist (EP-08)",
          {"path": "/oauth2/default"}, FOREVER),
    Fault("discovery_smart_v1", "endpoints", "move_path",
          "discovery names endpoints of smart-v1, which say unknown-tenant (OR-02)",
          {"path": "/oauth2/smart-v1"}, FOREVER),
    Fault("well_known_html", "well_known", "html", "a web page for every .well-known path (DS-14)", {"status": 200},
          FOREVER),
    Fault("well_known_404", "well_known", "outcome", "no .well-known document at all: oauth-uris only (DS-11)",
          {"status": 404}, FOREVER),
    Fault("openid_404", _OPENID, "outcome", "openid-configuration is missing", {"status": 404}),
    Fault("openid_delay", f"{_OPENID}.delay", "delay", "openid-configuration takes some seconds", {"seconds": 1}),
    Fault("openid_members", f"{_OPENID}.answer", "edit", "openid-configuration with members set or dropped",
          {"set": {}, "drop": []}),
    Fault("openid_wrong_issuer", f"{_OPENID}.answer", "edit", "openid-configuration of another issuer (OA-17)",
          {"set": {"issuer": "https://issuer.invalid"}, "drop": []}),
    Fault("openid_inserted", "openid_place", "insert",
          "openid-configuration only where RFC 8414 §3 puts it, between host and path (Q6)", {}, FOREVER),
    Fault("metadata_html", "metadata", "html", "the CapabilityStatement is a web page", {"status": 200}),
    Fault("metadata_500", "metadata", "outcome", "the CapabilityStatement fails", {"status": 500}),
    Fault("metadata_delay", "metadata.delay", "delay", "the CapabilityStatement takes some seconds", {"seconds": 1}),
    Fault("metadata_xml", "metadata_format", "xml", "the CapabilityStatement is XML whatever is asked for (EP-09)"),
    Fault("metadata_no_oauth_uris", "oauth_uris", "withhold", "the CapabilityStatement names no endpoints (DS-11)"),
    Fault("brands_moved", "brands.answer", "address", "the brand bundle gives this address of the FHIR base (BR-05)",
          {"address": "https://moved.invalid/api/FHIR/R4"}, FOREVER),
    Fault("endpoints_moved", "endpoints_bundle.answer", "address",
          "the endpoints bundle gives this address of this entry; 0 is the sandbox (DS-15)",
          {"entry": 0, "address": "https://moved.invalid/api/FHIR/R4"}, FOREVER),
)  # fmt: skip
