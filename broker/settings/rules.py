"""Faults that only show when the tables of `broker.toml` are held against each other. Each names what to fix."""

from collections import Counter
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from broker.scopes import Scopes
from broker.settings.app import AppSettings
from broker.settings.ehr import EhrSettings
from broker.settings.fields import is_loopback
from broker.settings.model import Settings
from broker.settings.registration import RegistrationSettings

Fault = tuple[tuple[str | int, ...], str]
"""The place of the fault, as keys and indexes from the top of the file, and its text."""


def find_faults(settings: Settings) -> list[Fault]:
    """Return every fault, not only the first, and each one once."""
    rules = (_empty, _repeated, _insecure, _tls, _registrations, _apps, _exchanges)
    return list(dict.fromkeys(fault for rule in rules for fault in rule(settings)))


def _empty(settings: Settings) -> Iterator[Fault]:
    for table in ("ehr", "registration"):
        if not getattr(settings, table):
            yield (table,), f"at least one [[{table}]] is needed"


def _repeated(settings: Settings) -> Iterator[Fault]:
    tables = {
        "ehr": [ehr.id for ehr in settings.ehr],
        "registration": [registration.id for registration in settings.registration],
        "app": [app.id for app in settings.app],
        "issuer": [issuer.id for issuer in settings.issuer],
        "webhook": [webhook.id for webhook in settings.webhook],
    }
    for table, ids in tables.items():
        times = Counter(ids)
        for index, name in enumerate(ids):
            if times[name] > 1:
                yield (table, index, "id"), f"{table} {name!r} is defined more than once"
    bases = Counter(ehr.fhir_base for ehr in settings.ehr if ehr.enabled)
    for index, ehr in enumerate(settings.ehr):
        if bases[ehr.fhir_base] > 1:
            yield (
                ("ehr", index, "fhir_base"),
                "two EHRs have this FHIR base; a launch could not tell them apart (AL-02)",
            )
        for alias in sorted(bases.keys() & set(ehr.aliases) - {ehr.fhir_base}):
            yield (
                ("ehr", index, "aliases"),
                f"{alias} is the FHIR base of an EHR; its resources would be taken for this one's",
            )


def _insecure(settings: Settings) -> Iterator[Fault]:
    for place, url in _urls(settings):
        if urlsplit(url).scheme == "https" or (settings.allow_loopback_http and is_loopback(url)):
            continue
        fix = "set allow_loopback_http = true" if is_loopback(url) else "use https"
        yield place, f"{url} is plain http: tokens would travel readable (TK-08). Fix: {fix}"


def _tls(settings: Settings) -> Iterator[Fault]:
    first: dict[str, EhrSettings] = {}
    for index, ehr in enumerate(settings.ehr):
        for host in sorted(ehr.hosts) if ehr.enabled else ():
            other = first.setdefault(host, ehr)
            if other.tls_files != ehr.tls_files:
                yield (
                    ("ehr", index, "ca_file"),
                    f"host {host} is also EHR {other.id!r}'s. Fix: the same ca_file, certificate and certificate_key",
                )


def _urls(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    yield ("public_url",), settings.public_url
    for index, ehr in enumerate(settings.ehr):
        yield ("ehr", index, "fhir_base"), ehr.fhir_base
        for name in ("token_endpoint", "authorization_endpoint"):
            if url := getattr(ehr, name):
                yield ("ehr", index, name), url
    for index, registration in enumerate(settings.registration):
        for origin in registration.frame_ancestors:
            yield ("registration", index, "frame_ancestors"), origin
    for index, webhook in enumerate(settings.webhook):
        yield ("webhook", index, "url"), webhook.url
    yield from _app_urls(settings)


def _app_urls(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for index, app in enumerate(settings.app):
        for uri in app.redirect_uris:
            yield ("app", index, "redirect_uris"), uri
        for origin in app.origins or ():
            yield ("app", index, "origins"), origin
        if app.launch_uri:
            yield ("app", index, "launch_uri"), app.launch_uri
        if app.jwks_uri:
            yield ("app", index, "jwks_uri"), app.jwks_uri
    for index, issuer in enumerate(settings.issuer):
        if url := issuer.jwks_uri or issuer.discovered_at:
            yield ("issuer", index, "jwks_uri" if issuer.jwks_uri else "issuer"), url


def _registrations(settings: Settings) -> Iterator[Fault]:
    ehrs = {ehr.id: ehr for ehr in settings.ehr}
    apps = {app.id: app for app in settings.app}
    for index, registration in enumerate(settings.registration):
        for ehr_id in registration.ehr:
            if (ehr := ehrs.get(ehr_id)) is None:
                yield ("registration", index, "ehr"), _unknown("EHR", ehr_id, ehrs)
            elif ehr.environment != registration.environment:
                yield (
                    ("registration", index, "environment"),
                    f"{registration.environment} registration at {ehr.environment} EHR {ehr_id!r} (EP-02)",
                )
            elif ":" in registration.client_id and _sends_raw(registration, ehr):
                yield (
                    ("registration", index, "client_id"),
                    f"EHR {ehr_id!r} takes HTTP Basic raw, where a client_id that holds a colon cannot be told (Q1)",
                )
        if registration.app is not None:
            for text in _launched_app(registration, apps.get(registration.app), apps):
                yield ("registration", index, "app"), text


def _sends_raw(registration: RegistrationSettings, ehr: EhrSettings) -> bool:
    return registration.authentication == "client_secret_basic" and ehr.profile.basic_encoding == "raw"


def _launched_app(registration: RegistrationSettings, app: AppSettings | None, known: Iterable[str]) -> Iterator[str]:
    if app is None:
        yield _unknown("app", str(registration.app), known)
        return
    if app.launch_uri is None:
        yield f"app {app.id!r} has no launch_uri, so an EHR launch has nowhere to go"
    if registration.id not in {access.registration for access in app.access}:
        yield f"app {app.id!r} has no [[app.access]] for registration {registration.id!r}"


def _apps(settings: Settings) -> Iterator[Fault]:
    registrations = {registration.id: registration for registration in settings.registration}
    for index, app in enumerate(settings.app):
        taken: set[tuple[str, str]] = set()
        for number, access in enumerate(app.access):
            place = ("app", index, "access", number)
            registration = registrations.get(access.registration)
            if registration is None:
                yield (*place, "registration"), _unknown("registration", access.registration, registrations)
                continue
            served = {(ehr, registration.flow) for ehr in registration.ehr}
            for ehr, flow in sorted(served & taken):
                yield (*place, "registration"), f"a second {flow} registration for EHR {ehr!r}"
            taken |= served
            yield from (((*place, "scopes"), text) for text in _access_scopes(access.scopes, registration))
            if registration.flow == "launch" and not app.redirect_uris:
                yield ("app", index, "id"), f"app {app.id!r} uses a launch registration but has no redirect_uris"
            if registration.flow == "backend" and app.authentication == "none":
                yield (
                    (*place, "registration"),
                    f"app {app.id!r} proves nothing, so it cannot use a backend registration",
                )


def _exchanges(settings: Settings) -> Iterator[Fault]:
    apps = {app.id: app for app in settings.app}
    for index, app in enumerate(settings.app):
        place = ("app", index, "exchange_from")
        for holder in app.exchange_from:
            if holder not in apps:
                yield place, _unknown("app", holder, apps)
            elif holder == app.id:
                yield place, "an app may always exchange its own handles"
        if app.exchange_from and app.authentication == "none":
            yield place, f"app {app.id!r} proves nothing, so nobody can say that it is the one who acts"


def _access_scopes(scopes: str, registration: RegistrationSettings) -> Iterator[str]:
    allowed = Scopes.parse(scopes)
    if not allowed:
        yield "scopes is empty: this access allows nothing"
    beyond = [str(scope) for scope in sorted(map(str, allowed.resources)) if not _within(scope, registration.scopes)]
    if beyond:
        yield f"{' '.join(beyond)} is more than registration {registration.id!r} may ask the EHR for"


def _within(scope: str, limit: str) -> bool:
    return Scopes.parse(scope).narrows(Scopes.parse(limit))


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    return f"there is no {what} {name!r}; defined: {', '.join(sorted(known)) or 'none'}"
