"""compose.yaml: what no container engine was there to check is checked as data."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # its stubs are not in the lock

from broker.settings.deployment import VARIABLES, Deployment

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
SCHEMA: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "compose.schema.json").read_text(encoding="utf-8"))
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))


def test_it_is_a_compose_file() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(COMPOSE)] == []
    assert "version" not in COMPOSE


@pytest.mark.parametrize(
    "fault",
    [
        {"services": {"a": {"image": "a", "readonly": True}}},
        {"services": {"a": {"read_only": True}}},
        {"services": {"a": {"image": "a", "network_mode": "host", "networks": ["b"]}}},
        {"services": {"a": {"image": "a", "healthcheck": {"interval": "10"}}}},
        {"services": {"a": {"image": "a", "depends_on": {"b": {}}}}},
    ],
)
def test_the_schema_finds_faults(fault: dict[str, Any]) -> None:
    assert not Draft202012Validator(SCHEMA).is_valid(fault)


@each_service
def test_a_service_runs_with_no_rights_that_it_does_not_need(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged"} & service.keys()
    user, group = service["user"].split(":")
    assert int(user) > 0
    assert int(group) > 0


@each_service
def test_a_service_has_a_healthcheck_without_tools_that_its_image_lacks(service: dict[str, Any]) -> None:
    test = " ".join(service["healthcheck"]["test"])
    assert not re.search(r"\b(curl|wget|nc)\b", test)
    assert {"interval", "timeout"} <= service["healthcheck"].keys()


def test_only_the_brokers_port_is_published_and_only_to_this_machine() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "broker": ["127.0.0.1:8080:8080"]
    }


def test_the_store_is_on_a_network_that_leads_nowhere_and_only_the_broker_shares() -> None:
    assert COMPOSE["networks"]["store"]["internal"] is True
    assert SERVICES["valkey"]["networks"] == ["store"]
    assert [name for name, service in SERVICES.items() if "store" in service.get("networks", ())] == [
        "broker",
        "valkey",
    ]


def test_every_secret_is_a_file_and_each_service_gets_only_its_own() -> None:
    folder = ".broker/compose"
    assert COMPOSE["secrets"] == {name: {"file": f"{folder}/{name}"} for name in ("kek", "redis_url", "redis_password")}
    assert {name: service.get("secrets", []) for name, service in SERVICES.items()} == {
        "broker": ["kek", "redis_url"],
        "valkey": ["redis_password"],
        "sandbox": [],
    }
    assert "/.broker/" in (ROOT / ".gitignore").read_text().split()


def test_no_secret_is_in_an_environment_variable() -> None:
    variables = SERVICES["broker"]["environment"]
    assert variables.keys() <= VARIABLES.keys()
    assert not {"BROKER_KEK", "BROKER_REDIS_URL"} & variables.keys()
    assert all("environment" not in SERVICES[name] for name in ("valkey", "sandbox"))


def test_the_brokers_variables_and_mounts_name_the_same_places() -> None:
    service = SERVICES["broker"]
    variables = service["environment"]
    assert variables["BROKER_CONFIG"] == service["configs"][0]["target"]
    assert variables["BROKER_KEK_FILE"] == "/run/secrets/kek"
    assert variables["BROKER_REDIS_URL_FILE"] == "/run/secrets/redis_url"
    assert service["volumes"] == [f"state:{variables['BROKER_STATE']}"]
    deployment = Deployment.read({"BROKER_STATE": variables["BROKER_STATE"], "BROKER_HOST": variables["BROKER_HOST"]})
    assert str(deployment.audit_file).startswith(variables["BROKER_STATE"])
    assert seconds(service["stop_grace_period"]) > deployment.drain_seconds


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def test_every_name_that_a_service_uses_is_defined_and_every_definition_is_used() -> None:
    for kind in ("configs", "secrets"):
        used = {
            mount["source"] if isinstance(mount, dict) else mount
            for service in SERVICES.values()
            for mount in service.get(kind, ())
        }
        assert used == COMPOSE[kind].keys()
    volumes = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert volumes == COMPOSE["volumes"].keys()
    networks = {network for service in SERVICES.values() for network in service.get("networks", ())}
    assert networks == COMPOSE["networks"].keys()


def test_every_file_of_the_checkout_that_it_names_exists() -> None:
    files = [entry["file"] for entry in COMPOSE["configs"].values()]
    files += [service["build"]["dockerfile"] for service in SERVICES.values() if "build" in service]
    made_by_hand = [name for name in files if name.startswith(".broker/")]

    assert made_by_hand == [".broker/compose/broker.toml"]
    assert all((ROOT / name).is_file() for name in files if name not in made_by_hand)


def test_every_file_that_it_names_and_git_does_not_keep_is_made_as_the_operations_page_says() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for name in ("broker.toml", "kek", "redis_password", "redis_url"):
        assert re.search(rf"^(cp .*| openssl .*> | printf .*> ){name}\)?(\s|$)", page, re.MULTILINE), name


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Serve one status on a free port."""

    class Probe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Probe) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1)])
@pytest.mark.parametrize(("name", "port"), [("broker", "8080"), ("sandbox", "9400")])
def test_a_python_healthcheck_tells_ready_from_not_ready(name: str, port: str, status: int, exit_status: int) -> None:
    kind, python, option, code = SERVICES[name]["healthcheck"]["test"]
    assert (kind, python, option) == ("CMD", "python", "-c")
    assert code.count(port) == 1
    with answering(status) as free:
        run = subprocess.run([sys.executable, option, code.replace(port, str(free))], timeout=30, check=False)
    assert run.returncode == exit_status
