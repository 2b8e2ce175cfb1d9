"""Who was refused for the pace of requests, in the audit trail: not each one, or a flood would fill the disk."""

import asyncio
from collections import Counter
from typing import Final

import structlog

from broker.audit import AuditRecord, AuditTrail
from broker.errors import AuditUnavailable, BrokerError
from broker.handles import Handle

log = structlog.get_logger()

TOLD_SECONDS: Final = 1.0
"""Of one app at one EHR, and for one reason, there is no more than one record in so long, and one after it that counts
the others."""


class Throttled:
    """Writes the records."""

    def __init__(self, audit: AuditTrail) -> None:
        self._audit = audit
        self._untold: Counter[tuple[str, str, str]] = Counter()
        """Refused since the last record, by app, EHR and code. Whoever is in it waits for the next one."""

    def note(self, handle: Handle, error: BrokerError) -> None:
        """Record a refused request, at once or as one of several. Raises `AuditUnavailable`."""
        key = (handle.app, handle.ehr, error.code)
        if key in self._untold:
            self._untold[key] += 1
            return
        self._record(key, f"{error.code}: {error.detail}", handle)
        self._wait(key)

    def close(self) -> None:
        """Tell what was not told yet."""
        for key in [key for key, count in self._untold.items() if count]:
            self._tell(key)

    def _wait(self, key: tuple[str, str, str]) -> None:
        self._untold[key] = 0
        asyncio.get_running_loop().call_later(TOLD_SECONDS, self._again, key)

    def _again(self, key: tuple[str, str, str]) -> None:
        if self._untold.get(key):
            self._tell(key)
            self._wait(key)
        else:
            self._untold.pop(key, None)

    def _tell(self, key: tuple[str, str, str]) -> None:
        count = self._untold[key]
        try:
            self._record(key, f"{key[2]}: {count} more requests were refused")
        except AuditUnavailable as error:
            log.warning("refusals_not_recorded", app=key[0], ehr=key[1], count=count, cause=error.detail)
        self._untold[key] = 0

    def _record(self, key: tuple[str, str, str], reason: str, handle: Handle | None = None) -> None:
        app, ehr, _ = key
        self._audit.record(
            AuditRecord(
                event="handle.throttle",
                outcome="denied",
                app=app,
                ehr=ehr,
                grant=handle.tag if handle else None,
                handle=handle.id if handle else None,
                reason=reason,
            )
        )
