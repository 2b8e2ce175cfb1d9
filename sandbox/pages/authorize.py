"""The way of a user from the authorization request back to the app: sign in, choose a patient, approve."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sandbox.ehr import Ehr
from sandbox.journal import SHOWN_PARAMETERS, Arrival, redact
from sandbox.launching import encounters_of
from sandbox.oauth import authorize
from sandbox.oauth.authorize import RedirectedError
from sandbox.oauth.errors import OAuthError, invalid_request
from sandbox.oauth.parameters import Parameters, from_form, from_query
from sandbox.oauth.server import AuthorizationServer
from sandbox.oauth.users import User
from sandbox.pages.patients import MOST, found, row
from sandbox.pages.rendering import page, see_other
from sandbox.pages.visits import Visit, Visits
from sandbox.pages.wording import explain


def authorize_routes(server: AuthorizationServer, ehr: Ehr) -> list[BaseRoute]:
    """Return the routes below the issuer."""
    pages = AuthorizationPages(server, ehr)
    return [
        Route("/authorize", pages.begin, methods=["GET", "POST"]),
        Route("/login", _posted(pages.log_in), methods=["POST"]),
        Route("/patient", pages.search, methods=["GET"]),
        Route("/patient", _posted(pages.choose), methods=["POST"]),
        Route("/approve", _posted(pages.decide), methods=["POST"]),
    ]


class AuthorizationPages:
    """One method for each thing a user does; each answers with the page for what is to be settled next."""

    def __init__(self, server: AuthorizationServer, ehr: Ehr) -> None:
        self._server = server
        self._ehr = ehr
        self._patients = ehr.population["Patient"]
        self._visits = Visits(server.clock, server.entropy)

    async def begin(self, request: Request) -> Response:
        """Answer the authorization request itself."""
        arrival: Arrival = request.scope["arrival"]
        try:
            parameters = from_query(request) if request.method == "GET" else await from_form(request)
            arrival.parameters = redact(parameters.items(), SHOWN_PARAMETERS)
            arrival.client_id = parameters.get("client_id")
            visit = self._visits.begin(authorize.read(self._server, parameters, posted=request.method == "POST"))
        except RedirectedError as refusal:
            return see_other(refusal.url)
        except OAuthError as error:
            return _refusal(error)
        struck = self._server.faults.next("authorize.pages", arrival.client_id)
        if struck or self._server.settings.auto_approve:
            return self._approve_unseen(visit, struck.parameters["patient"] if struck else "")
        return self._show(visit)

    async def log_in(self, form: Parameters) -> Response:
        """Check a user name and password; a patient who signs in has chosen the patient by it."""
        visit = self._visits.find(form)
        given = form.get("username"), form.get("password")
        user = next((user for user in self._ehr.users if (user.username, user.password) == given), None)
        if user is None:
            wrong = "That user name and password do not belong together."
            return page("login.html", 403, visit=visit, users=self._ehr.users, wrong=wrong)
        return self._show(replace(visit, user=user, patient=user.own_patient if visit.lacks_patient else visit.patient))

    async def search(self, request: Request) -> Response:
        """List the patients a query finds."""
        try:
            parameters = from_query(request)
            return self._show(self._visits.find(parameters), parameters.get("q", ""))
        except OAuthError as error:
            return _refusal(error)

    async def choose(self, form: Parameters) -> Response:
        """Settle the patient."""
        visit = self._visits.find(form)
        if visit.user is None or not visit.lacks_patient or form.get("patient") not in self._patients:
            raise invalid_request("choose a patient from the list")
        return self._show(replace(visit, patient=form["patient"]))

    async def decide(self, form: Parameters) -> Response:
        """Send the user back to the app with a code or a refusal."""
        visit = self._visits.find(form)
        if visit.user is None or visit.lacks_patient:
            raise invalid_request("sign in and choose a patient first")
        self._visits.end(visit)
        if form.get("decision") != "approve":
            return see_other(authorize.deny(self._server, visit.request))
        return self._approved(visit, visit.user)

    def _show(self, visit: Visit, query: str = "") -> Response:
        self._visits.keep(visit)
        if visit.user is None:
            return page("login.html", visit=visit, users=self._ehr.users, wrong="")
        if visit.lacks_patient:
            people = [row(patient) for patient in found(self._patients.values(), query)]
            return page("patient.html", visit=visit, people=people, most=MOST, query=query)
        patient = row(self._patients[visit.patient]) if visit.patient else None
        permissions = [(scope, explain(scope)) for scope in visit.request.scopes]
        return page("approve.html", visit=visit, patient=patient, permissions=permissions)

    def _approve_unseen(self, visit: Visit, patient: str) -> Response:
        if visit.lacks_patient:
            hinted = patient or visit.request.login_hint.partition("patient:")[2]
            visit = replace(visit, patient=hinted or next(iter(self._patients)))
        if visit.patient is not None and visit.patient not in self._patients:
            return _refusal(invalid_request("there is no patient of that id"))
        return self._approved(visit, visit.user or self._ehr.users[0])

    def _approved(self, visit: Visit, user: User) -> Response:
        encounter = visit.encounter
        if encounter is None and visit.patient and "launch/encounter" in visit.request.scopes:
            encounter = next(iter(encounters_of(self._ehr.population, visit.patient)), None)
        return see_other(authorize.approve(self._server, visit.request, user, visit.patient, encounter))


def _refusal(error: OAuthError) -> Response:
    return page("error.html", 400, error=error)


def _posted(endpoint: Callable[[Parameters], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(await from_form(request))
        except OAuthError as error:
            return _refusal(error)

    return answer
