"""How the EHR starts an app: a one-time launch value on the app's launch URL (AL-01)."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from sandbox.oauth.ledger import Launch
from sandbox.oauth.server import AuthorizationServer
from sandbox.oauth.users import User

Resources = Mapping[str, Mapping[str, Mapping[str, Any]]]


class LaunchError(ValueError):
    """A launch that cannot begin; the text says why."""


def begin_launch(
    server: AuthorizationServer,
    population: Resources,
    user: User,
    *,
    client_id: str,
    patient: str,
    encounter: str | None = None,
) -> tuple[str, str]:
    """Return the launch value and the URL the browser is sent to; raises `LaunchError`.

    Without an encounter the patient's latest one goes with the launch.
    """
    client = server.clients.get(client_id)
    if client is None or client.launch_uri is None:
        raise LaunchError("client_id is not a registered client with a launch_uri")
    if patient not in population["Patient"]:
        raise LaunchError("there is no such patient")
    known = encounters_of(population, patient)
    if encounter and encounter not in known:
        raise LaunchError("there is no such encounter of this patient")
    launch = Launch(
        client_id=client_id,
        patient=patient,
        encounter=encounter or next(iter(known), None),
        user=user,
        expires_at=server.clock() + server.settings.launch_lifetime,
    )
    value = server.ledger.issue_launch(launch, server.form("launch", client_id))
    query = urlencode({"iss": server.settings.fhir_base, "launch": value})
    return value, f"{client.launch_uri}{'&' if '?' in client.launch_uri else '?'}{query}"


def encounters_of(population: Resources, patient: str) -> list[str]:
    """Return the ids of a patient's encounters, the latest first."""
    own = [
        encounter
        for encounter in population.get("Encounter", {}).values()
        if encounter.get("subject", {}).get("reference") == f"Patient/{patient}"
    ]
    own.sort(key=lambda encounter: encounter.get("period", {}).get("start", ""), reverse=True)
    return [encounter["id"] for encounter in own]
