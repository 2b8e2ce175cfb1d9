"""The settings of a profile (spec §0, Q1 to Q10, and quirks), and how the files are read."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

GENERIC: Final = "generic"
Literally = Annotated[str, Field(pattern=r"^https?://[^\s<>\"\\^`{|}]+$")]
MemberName = Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]


class Profile(BaseModel):
    """A vendor's known behaviour. Every setting can be said otherwise for one EHR, in its `[[ehr]]` table."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    basic_encoding: Literal["rfc6749", "raw"]
    """Q1: whether both parts of HTTP Basic are form-encoded before base64."""
    client_id_in_body: Literal["never", "refresh", "always"]
    """Q2: whether an authenticated token request names `client_id` in its body, too."""
    assertion_audience: Literal["token_endpoint", "issuer"] | Literally
    """Q3: `aud` of client assertions. With `"issuer"`, each of several EHRs of a registration must have its endpoints
    at its issuer's origin, or named by the issuer's own metadata.
    """
    missing_scope: Literal["as_requested", "refuse"]
    """Q4: what a token response without `scope` grants."""
    metadata_path: Literal["append", "insert"]
    """Q6: which place of `.well-known/openid-configuration` is tried first for an issuer with a path (RFC 8414 §3)."""
    authorize_audience: Literal["fhir_base", "omit"] | Literally
    """Q7: `aud` of the authorization request."""
    audience_slash: Literal["keep", "strip", "add"]
    """Q7: the trailing slash of that `aud`."""
    default_lifetime: Annotated[int, Field(gt=0, le=86_400)]
    """Q8: seconds that an access token is taken to live when the response does not say."""
    scope_dialect: Literal["v1", "v2", "auto"]
    """Q9: how scopes are written; `auto` is v2 where the EHR lists permission-v2."""
    bulk_kickoff: Literal["get", "post"]
    """Q10: how bulk exports are asked for: by GET as well as by POST, or by POST alone, whichever the app used."""
    authorize_post: Literal["never", "ehr_launch", "any_launch"]
    """Where a long authorization request may be sent by POST, if the EHR lists authorize-post (AL-15, EP-11)."""
    resource_parameter: bool
    """Whether the audience is also sent as `resource` (AL-13, RFC 8707)."""
    expand_wildcards: bool
    """Whether `*` is asked for as the types that the CapabilityStatement lists (OR-06)."""
    fhir_accept: Literal["application/fhir+json", "application/json+fhir"]
    """What CapabilityStatements are asked for as (OT-03)."""
    client_id_header: Literal["", "Epic-Client-ID"]
    """A header that names the client when metadata is read (EP-08)."""
    refresh_tokens: Literal["rotating", "reusable"]
    """`reusable`: the same refresh token is accepted again, so a refresh whose answer was lost may be repeated."""
    refresh_grace: Annotated[int, Field(ge=0, le=3600)]
    """Seconds in which a refresh token that was replaced is accepted again, so that a lost answer may be asked for."""
    introspect_lost: bool
    """Whether introspection tells if a refresh token whose answer was lost is still active; then it is sent again."""
    refresh_interval: Annotated[int, Field(ge=0, le=3600)]
    """Seconds that must lie between two refreshes of one grant (OR-04)."""
    refresh_while_alive: bool
    """Whether a refresh token dies with its access token, so that grants are renewed even when nobody asks (RF-07)."""
    refresh_lifetime: Annotated[int, Field(ge=0, le=315_360_000)]
    """Seconds from a person's authorization to the end of the refresh token, for forecasts; 0: not known (RF-13)."""
    refresh_idle: Annotated[int, Field(ge=0, le=315_360_000)]
    """Seconds that a refresh token lasts without being used, for forecasts; 0: not known (RF-13)."""
    jwks_cache: Annotated[int, Field(ge=300, le=604_800)]
    """Seconds that the EHR may go on with a JWK Set it has fetched: the old key is kept at least as long (RG-11)."""
    introspection_authentication: Literal["client", "bearer"]
    """What authorizes an introspection request: the registration, or an access token (IN-03, EP-20)."""
    id_token_issuers: tuple[Literally, ...]
    """Issuers accepted in id_tokens beside the one of smart-configuration, to the letter (EP-18, OR-07)."""
    id_token_audiences: tuple[MemberName, ...]
    """Audiences accepted in id_tokens beside the client id; each use is audited (OT-04)."""
    context_extensions: tuple[MemberName, ...]
    """Members of token responses beyond SMART's that apps may see (CX-09)."""


@cache
def profile(name: str) -> Profile:
    """Read a profile. Raises `KeyError` when there is none of that name."""
    return Profile.model_validate({key: entry["value"] for key, entry in _entries(name).items()})


def profile_names() -> list[str]:
    """Return the names of all profiles, sorted."""
    found = (file.name for file in files("broker.profiles").iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def profile_sources(name: str) -> Mapping[str, str]:
    """Return where each setting of a profile is known from. Raises `KeyError`."""
    return {key: entry["source"] for key, entry in _entries(name).items()}


def _entries(name: str) -> dict[str, dict[str, Any]]:
    if name not in profile_names():
        raise KeyError(name)
    generic = {} if name == GENERIC else _entries(GENERIC)
    text = files("broker.profiles").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    said: dict[str, dict[str, Any]] = tomllib.loads(text)["settings"]
    return generic | said
