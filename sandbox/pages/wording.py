"""Scopes in words a user can decide about."""

from sandbox.oauth.scopes import ClinicalScope

_KNOWN = {
    "openid": "Know who you are",
    "fhirUser": "See your own record in the directory",
    "profile": "See your own record in the directory",
    "launch": "Take over the patient and visit you have open",
    "launch/patient": "Know which patient you chose",
    "launch/encounter": "Know which visit is current",
    "offline_access": "Keep access when you are not here, until you withdraw it",
    "online_access": "Keep access while you are signed in",
}
_LETTERS = {"c": "create", "r": "read", "u": "change", "d": "delete", "s": "search"}
_WHOSE = {"patient": "of this patient", "user": "that you may see", "system": "of this organisation"}


def explain(scope: str) -> str:
    """Return one phrase for one scope; an unknown scope is shown as it is."""
    clinical = ClinicalScope.parse(scope)
    if clinical is None:
        return _KNOWN.get(scope.partition("?")[0], scope)
    actions = [_LETTERS[letter] for letter in clinical.letters]
    said = actions[0] if len(actions) == 1 else f"{', '.join(actions[:-1])} and {actions[-1]}"
    what = "all records" if clinical.kind == "*" else f"{clinical.kind} records"
    limit = f", only where {clinical.query.replace('&', ' and ')}" if clinical.query else ""
    return f"{said.capitalize()} {what} {_WHOSE[clinical.level]}{limit}"
