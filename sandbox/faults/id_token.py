"""What id_tokens can lie about, and two habits that are no lie."""

from sandbox.faults.fault import Fault

_ELSEWHERE = "https://elsewhere.invalid/fhir/Practitioner/1"

ID_TOKEN_FAULTS = (
    Fault("id_token_bad_nonce", "id_token", "claim", "another nonce", {"claim": "nonce", "value": "not-the-nonce"}),
    Fault("id_token_no_nonce", "id_token", "unclaim", "no nonce (OA-27)", {"claim": "nonce"}),
    Fault("id_token_bad_audience", "id_token", "claim", "another aud", {"claim": "aud", "value": "another-client"}),
    Fault("id_token_audiences_azp", "id_token", "audiences_azp", "two audiences, azp the client: good (OA-27)",
          {"other": "another-client"}),
    Fault("id_token_audiences", "id_token", "audiences", "two audiences without azp (OA-27)",
          {"other": "another-client"}),
    Fault("id_token_bad_azp", "id_token", "claim", "azp of another client (OA-27)",
          {"claim": "azp", "value": "another-client"}),
    Fault("id_token_bad_issuer", "id_token", "claim", "another iss",
          {"claim": "iss", "value": "https://issuer.invalid"}),
    Fault("id_token_subject", "id_token", "claim", "another sub: good, and of somebody else",
          {"claim": "sub", "value": "somebody-else"}),
    Fault("id_token_issuer_slash", "id_token", "slash", "the iss with a slash after it (ID-03)"),
    Fault("id_token_expired", "id_token", "claim", "an exp long past", {"claim": "exp", "value": 1}),
    Fault("id_token_bad_signature", "id_token", "forge", "signed with a key that is not published"),
    Fault("id_token_alg_none", "id_token", "unsigned", "alg none, without a signature (ID-04)"),
    Fault("id_token_alg_hs256", "id_token", "confuse", "alg HS256 with the public key for a secret (ID-04)"),
    Fault("id_token_profile", "id_token", "rename", "profile instead of fhirUser, as before SMART 2",
          {"claim": "fhirUser", "to": "profile"}),
    Fault("id_token_relative_fhir_user", "id_token", "relative", "a relative fhirUser: good (ID-06)"),
    Fault("id_token_foreign_fhir_user", "id_token", "claim", "a fhirUser on another server (ID-06)",
          {"claim": "fhirUser", "value": _ELSEWHERE}),
)  # fmt: skip
