"""deploy/grafana and deploy/prometheus: every metric and label that they ask for is one that the server tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployed import DEPLOY, Expression, document
from programs import site

from walbatch.metrics.families import families

pytestmark = pytest.mark.packaging

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "walbatch.json").read_text())
RULES: list[dict[str, Any]] = [rule for group in document("prometheus/alerts.yml")["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the panels that show something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every expression, with where it is."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']}-{target['refId']}", target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_the_server_tells_what_is_asked_for(place: str, expression: str) -> None:
    """Its metrics are in the list of the code, with these labels and these values."""
    found = Expression(expression)
    assert found.metrics, place
    assert found.families() is not None
    if place not in {"job", "instance", "destination"}:  # label_values(metric, label) is no PromQL
        assert found.unknown_labels() == set()
    assert found.unknown_values() == []


def test_a_running_server_tells_all_of_it(tmp_path: Path) -> None:
    """Those of the client library's included; `up` is Prometheus's own."""
    with site(tmp_path) as here:
        here.serve()
        _, text = here.admin_get("/metrics")
    told = set(re.findall(r"^([a-z_]+)[{ ]", text, re.MULTILINE))
    asked = {name for _, expression in expressions() for name in Expression(expression).metrics}
    assert asked - told == {"up"}


def test_a_metric_that_does_not_exist_would_be_found() -> None:
    """The control: a wrong name, a wrong label, a wrong value."""
    with pytest.raises(KeyError, match="walbatch_events_total"):
        Expression("rate(walbatch_events_total[5m])").families()
    with pytest.raises(KeyError, match="walbatch_commit_events"):
        Expression("walbatch_commit_events").families()
    assert Expression("sum by (lane) (walbatch_accepting)").unknown_labels() == {"lane"}
    assert Expression('walbatch_destination_state{state="down"}').unknown_values() == [("state", "down")]


def test_the_dashboard_shows_every_metric() -> None:
    """What the server tells has a place to be seen."""
    asked = [Expression(text) for place, text in expressions() if not place.startswith("Walbatch")]
    shown = {family.name for expression in asked for family in expression.families()}
    assert shown == set(families())


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_can_be_used_anywhere(panel: dict[str, Any]) -> None:
    """It takes the chosen data source, is as wide as its place, and says what it shows."""
    for place in (panel, *panel["targets"]):
        assert place["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["description"].endswith(".")
    assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_the_dashboard_is_whole() -> None:
    """Its ids are unique, no two panels overlap, and each variable that is used is defined."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    values = [value for _, text in expressions() for _, value in Expression(text).matchers]
    used = {value.removeprefix("$") for value in values if value.startswith("$")}
    assert len(ids) == len(set(ids))
    assert len(cells) == len(set(cells))
    assert used | {"datasource"} == defined


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """How serious it is, what happens, and what to do about it."""
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["annotations"]["description"].endswith(".")


def test_every_alert_has_a_test() -> None:
    """They are run by promtool: once all is well, and once it fires."""
    tested = json.dumps(document("prometheus/alerts_test.yml"))
    quiet = {check["alertname"] for check in document("prometheus/alerts_test.yml")["tests"][0]["alert_rule_test"]}
    names = {rule["alert"] for rule in RULES}
    assert quiet == names
    assert all(f'alertname=\\"{name}\\", alertstate=\\"firing\\"' in tested for name in names)


def test_prometheus_has_the_rules_and_the_name_that_they_ask_for() -> None:
    """The job is called as the alerts call it."""
    configuration = document("prometheus/prometheus.yml")
    (job,) = configuration["scrape_configs"]
    jobs = {value for rule in RULES for label, value in Expression(rule["expr"]).matchers if label == "job"}
    assert configuration["rule_files"] == ["alerts.yml"]
    assert jobs == {job["job_name"]}
