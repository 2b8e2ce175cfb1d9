"""OperationOutcome, the only shape in which this server says no (FHIR R4, operationoutcome.html)."""

from sandbox.population.elements import Resource


def outcome(severity: str, code: str, diagnostics: str) -> Resource:
    """Return an OperationOutcome of one issue; `code` is from the required IssueType value set."""
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": severity, "code": code, "diagnostics": diagnostics}],
    }


class FhirError(Exception):
    """A refusal: an HTTP status, an IssueType code and one sentence for the caller."""

    def __init__(self, status: int, code: str, diagnostics: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(diagnostics)
        self.status = status
        self.code = code
        self.diagnostics = diagnostics
        self.headers = headers or {}

    @property
    def resource(self) -> Resource:
        """The OperationOutcome that is sent."""
        return outcome("error", self.code, self.diagnostics)


def bad_request(diagnostics: str, code: str = "invalid") -> FhirError:
    """400: the request cannot be understood."""
    return FhirError(400, code, diagnostics)


def forbidden(diagnostics: str) -> FhirError:
    """403 with the challenge of RFC 6750 section 3.1."""
    return FhirError(403, "forbidden", diagnostics, {"WWW-Authenticate": 'Bearer error="insufficient_scope"'})


def method_not_allowed(method: str, allow: str) -> FhirError:
    """405 with the methods that would do."""
    return FhirError(405, "not-supported", f"{method} is not supported here.", {"Allow": allow})


def precondition_failed(diagnostics: str) -> FhirError:
    """412: the version or the condition the caller named does not hold."""
    return FhirError(412, "conflict", diagnostics)
