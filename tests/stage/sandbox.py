"""The simulated EHR: a program of its own, spoken to over HTTP only."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

READY = "sandbox: ready "


class Sandbox:
    """A running sandbox."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.fhir_base = f"{origin}/api/FHIR/R4"
        self.issuer = f"{origin}/oauth2"
        self._http = httpx2.Client(base_url=origin, trust_env=False, timeout=10)

    def register(self, **client: Any) -> dict[str, Any]:
        """Register the broker as a client of this EHR."""
        return dict(self._said(self._http.post("/__clients", json=client)).json())

    def launch(self, client_id: str, patient: str) -> str:
        """Do what the chart's "Launch app" button does; returns the URL it sends the browser to."""
        answer = self._said(self._http.post("/__launch", json={"client_id": client_id, "patient": patient}))
        return str(answer.json()["url"])

    def fault(self, name: str, **parameters: Any) -> None:
        """Arm a fault."""
        self._said(self._http.post("/__faults", json={"name": name, **parameters}))

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults that are armed, with how often each has struck."""
        return list(self._said(self._http.get("/__faults")).json())

    def switch(self, **settings: Any) -> None:
        """Change its settings until the reset."""
        self._said(self._http.post("/__settings", json=settings))

    def play(self, personality: str) -> None:
        """Behave as a vendor does, until the reset."""
        self._said(self._http.post("/__personality", json={"name": personality}))

    def clear_faults(self) -> None:
        """Disarm every fault."""
        self._said(self._http.delete("/__faults"))

    def counts(self) -> Mapping[str, int]:
        """Return how often each kind of request arrived."""
        return dict(self._said(self._http.get("/__counts")).json())

    def journal(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return what arrived, without secrets."""
        return list(self._said(self._http.get("/__journal", params={"kind": kind} if kind else {})).json())

    def expire(self) -> None:
        """Let every access token expire now."""
        self._said(self._http.post("/__expire"))

    def reset(self) -> None:
        """Forget tokens, journal, faults and clients."""
        self._said(self._http.post("/__reset", json={"clients": "drop"}))

    def close(self) -> None:
        """Close the connection to it."""
        self._http.close()

    @staticmethod
    def _said(answer: httpx2.Response) -> httpx2.Response:
        assert answer.status_code < 300, (answer.status_code, answer.text)
        return answer


@contextmanager
def running_sandbox(*options: str) -> Iterator[Sandbox]:
    """Start `python -m sandbox` on a free port; it is ended by its process id."""
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--auto-approve", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith(READY), line
        sandbox = Sandbox(line.removeprefix(READY).strip())
        try:
            yield sandbox
        finally:
            sandbox.close()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
