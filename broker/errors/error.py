"""The root of all errors, and the one that stops the program."""

from typing import ClassVar


class BrokerError(Exception):
    """The root. `code` is stable and documented; `oauth` and `issue` are the same fact in the two wire dialects."""

    code: ClassVar[str] = "server_error"
    status: ClassVar[int] = 500
    oauth: ClassVar[str] = "server_error"
    issue: ClassVar[str] = "exception"
    says: ClassVar[str] = "The broker could not complete the request."

    def __init__(self, detail: str, *, public: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.public = public or self.says


class ConfigurationError(BrokerError):
    """One or more faults in `broker.toml` or the environment, each a line that names the fix."""

    code = "configuration_error"

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
