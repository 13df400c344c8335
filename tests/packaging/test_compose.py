"""deploy/compose: what `docker compose up` starts, as far as it can be known without Docker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deployed import DEPLOY, document, env_file, seconds, settings
from programs import WALBATCH, eventually, site

from walbatch.errors import ConfigurationError

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[2]
BASE, DEMO = "compose/compose.yaml", "compose/compose.override.yaml"


def services(*, demo: bool) -> dict[str, dict[str, Any]]:
    """Return the services as compose merges them: mappings by key, everything else replaced."""
    merged: dict[str, dict[str, Any]] = document(BASE)["services"]
    for name, changes in document(DEMO)["services"].items() if demo else ():
        service = merged.setdefault(name, {})
        variables = service.get("environment", {}) | changes.get("environment", {})
        service.update(changes, environment=variables)
    return merged


def from_image(instruction: str) -> str:
    """Return the last instruction of this name in the Dockerfile."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    return [line.removeprefix(instruction).strip() for line in lines if line.startswith(f"{instruction} ")][-1]


def variables(*, demo: bool) -> dict[str, str]:
    """Return everything that the server's container has in its environment."""
    image = dict(pair.split("=", 1) for pair in from_image("ENV").split())
    own: dict[str, str] = services(demo=demo)["walbatch"]["environment"]
    return image | env_file("compose/walbatch.env") | own


@pytest.mark.parametrize("path", [BASE, DEMO])
def test_it_is_valid(path: str) -> None:
    """The schema of the compose specification knows every key."""
    check = Path(sys.executable).with_name("check-jsonschema")
    arguments = ("--builtin-schema", "vendor.compose-spec", DEPLOY / path)
    result = subprocess.run([check, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_up_alone_starts_the_server_and_the_fake_mixpanel() -> None:
    """Prometheus and Grafana come with the profile."""
    profiles = {name: service.get("profiles", []) for name, service in services(demo=True).items()}
    assert profiles == {"walbatch": [], "sink": [], "prometheus": ["monitoring"], "grafana": ["monitoring"]}
    assert set(services(demo=False)) == set(profiles) - {"sink"}


@pytest.mark.parametrize("name", ["walbatch", "sink", "prometheus", "grafana"])
def test_nothing_has_more_rights_than_it_needs(name: str) -> None:
    """No capabilities, no way to more of them, and no port beyond this machine."""
    service = services(demo=True)[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if "build" in service:
        assert service["user"] == from_image("USER")
        assert service["read_only"]


def test_the_log_is_on_a_named_volume() -> None:
    """`docker compose down` leaves it, and it is mounted where the image writes."""
    (mount,) = services(demo=False)["walbatch"]["volumes"]
    name, _, target = mount.partition(":")
    assert name in document(BASE)["volumes"]
    assert target == from_image("VOLUME") == variables(demo=False)["WALBATCH_DATA_DIR"]


def test_the_stop_is_waited_for() -> None:
    """Docker kills it only after it has had its grace."""
    grace = settings(variables(demo=True)).shutdown_grace
    assert seconds(services(demo=True)["walbatch"]["stop_grace_period"]) >= grace + 10


def test_the_health_check_is_the_image_s_own() -> None:
    """It needs no shell, and follows no outage of Mixpanel."""
    check = services(demo=False)["walbatch"]["healthcheck"]["test"]
    assert check == ["CMD", *json.loads(from_image("HEALTHCHECK").partition("CMD ")[2])]


def test_the_demonstration_delivers_to_the_fake(tmp_path: Path) -> None:
    """They share a network namespace, in which the fake listens where the server sends; the command is a real one."""
    sink, server = services(demo=True)["sink"], services(demo=True)["walbatch"]
    listen = sink["command"][sink["command"].index("--listen") + 1]
    assert server["network_mode"] == "service:sink"
    assert "ports" not in server
    assert settings(variables(demo=True)).mixpanel_url == f"http://{listen}"
    with site(tmp_path) as here:
        command = [word.replace(":8089", f":{here.sink_port}") for word in sink["command"]]
        fake = here.start(WALBATCH, *command)
        eventually(lambda: f"fake Mixpanel at http://127.0.0.1:{here.sink_port}" in fake.output(), "it listens")


def test_the_published_ports_are_the_server_s() -> None:
    """They are published by the fake, whose network the server shares."""
    made = settings(variables(demo=True))
    ports = {port.rpartition(":")[2] for port in services(demo=True)["sink"]["ports"]}
    assert ports == {address.rpartition(":")[2] for address in (made.grpc_listen, made.admin_listen)}


def test_the_real_thing_asks_for_a_token() -> None:
    """Without the fake and without a token it says what is missing; with one it starts."""
    with pytest.raises(ConfigurationError, match="WALBATCH_MIXPANEL_TOKEN: is not set"):
        settings(variables(demo=False))
    assert settings(variables(demo=False) | {"WALBATCH_MIXPANEL_TOKEN": "any"}).mixpanel_url is None


@pytest.mark.parametrize("demo", [True, False])
def test_prometheus_finds_the_server(*, demo: bool) -> None:
    """It scrapes the name that the server has on the network, at the admin port."""
    (job,) = document("prometheus/prometheus.yml")["scrape_configs"]
    ((target,),) = [config["targets"] for config in job["static_configs"]]
    host, _, port = target.partition(":")
    names = services(demo=True)["sink"]["networks"]["default"]["aliases"] if demo else list(services(demo=False))
    admin = variables(demo=demo)["WALBATCH_ADMIN_LISTEN"]
    assert host in names
    assert admin == f"0.0.0.0:{port}"


def test_what_is_mounted_is_there() -> None:
    """Docker would make an empty directory of a file that is missing."""
    mounts = [mount for service in services(demo=True).values() for mount in service.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert len(files) == 5
    assert all((DEPLOY / "compose" / name).is_file() for name in files)


def test_grafana_is_given_the_dashboard() -> None:
    """The provider reads the folder into which the dashboard is mounted, and it is the first thing one sees."""
    grafana = services(demo=False)["grafana"]
    (provider,) = document("grafana/provider.yml")["providers"]
    (source,) = document("grafana/datasource.yml")["datasources"]
    mounted = [mount.split(":")[1] for mount in grafana["volumes"] if "walbatch.json" in mount]
    assert mounted == [f"{provider['options']['path']}/walbatch.json"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == mounted[0]
    assert source["url"] == "http://prometheus:9090"


def test_a_misspelt_setting_would_be_found() -> None:
    """The control of the tests that take the settings as the server does."""
    with pytest.raises(ConfigurationError, match="WALBATCH_MISSPELT"):
        settings(variables(demo=True) | {"WALBATCH_MISSPELT": "1"})
