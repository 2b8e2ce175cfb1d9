"""`python -m sandbox` as its users meet it: a real process on a real port."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from sandbox.__main__ import main
from sandbox.faults import FAULTS

BACKEND = {
    "client_id": "backend",
    "authentication": "client_secret_basic",
    "client_secret": "s",
    "grant_types": ["client_credentials"],
    "scopes": "system/*.rs",
}


@contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the sandbox on a free port; give the process and its URL once it is ready."""
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--patients", "3", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline().removeprefix("sandbox: ready ").strip()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_one_line_and_ends_cleanly_when_told_to(number: signal.Signals) -> None:
    with program() as (process, url):
        assert httpx2.get(f"{url}/api/FHIR/R4/.well-known/smart-configuration").json()["issuer"] == f"{url}/oauth2"
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stdout
        assert process.stdout.read() == ""


def test_faults_on_the_wire_look_like_a_broken_server(tmp_path: Path) -> None:
    clients = tmp_path / "clients.json"
    clients.write_text(json.dumps([BACKEND]))
    with program("--client", str(clients)) as (_, url), httpx2.Client(base_url=url, auth=("backend", "s")) as http:
        form = {"grant_type": "client_credentials", "scope": "system/*.rs"}
        for name, parameters in (
            ("token_drop", {}),
            ("token_drop_before", {}),
            ("token_timeout", {"seconds": 0.05}),
        ):
            http.post("/__faults", json={"name": name, **parameters})
            with pytest.raises(httpx2.RemoteProtocolError, match="without sending a response"):
                http.post("/oauth2/token", data=form)
        token = http.post("/oauth2/token", data=form).json()["access_token"]
        http.post("/__faults", json={"name": "fhir_drop_mid_body"})
        with pytest.raises(httpx2.RemoteProtocolError, match="without sending complete message body"):
            http.get("/api/FHIR/R4/Patient", headers={"Authorization": f"Bearer {token}"}, auth=None)
        assert http.get("/__counts").json()["issued.access_token"] == 3


def test_a_client_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    clients = tmp_path / "clients.json"
    clients.write_text(json.dumps({**BACKEND, "scopes": []}))
    with pytest.raises(SystemExit, match=r"clients\.json: scopes is missing"):
        main(["--port", "0", "--patients", "3", "--client", str(clients)])


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            main(["--port", str(port)])


def test_the_faults_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list-faults"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [fault.name for fault in FAULTS]
    assert "token_timeout            processed, then no answer for some seconds (seconds=30)" in lines


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-option"],
        ["--patients", "0"],
        ["--code-lifetime", "-1"],
        ["--aud", "never"],
        ["--client-ca", "ca.pem"],
    ],
)
def test_a_wrong_option_ends_with_a_usage_text(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert "usage: sandbox" in capsys.readouterr().err
