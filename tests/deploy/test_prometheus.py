"""promtool's judgement of deploy/prometheus and of every expression in the dashboard."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import yaml
from debian_tools import tool
from deployed import DEPLOY

PROMETHEUS = DEPLOY / "prometheus"


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command = [tool("promtool"), *map(str, arguments)]
    return subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False)


def test_the_configuration_and_the_rules_are_valid() -> None:
    """The file of the rules is found, too."""
    checked = promtool("check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stderr
    count = len(yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"])
    assert f"{count} rules found" in checked.stdout


def test_the_alerts_fire_when_they_should() -> None:
    """And not when all is well, nor before their time."""
    tested = promtool("test", "rules", "alerts_test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_an_alert_that_does_not_fire_would_be_found(tmp_path: Path) -> None:
    """The control of these tests: the same with every limit out of reach."""
    (tmp_path / "alerts_test.yml").write_text((PROMETHEUS / "alerts_test.yml").read_text())
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = "30d"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    assert promtool("test", "rules", tmp_path / "alerts_test.yml").returncode != 0


def test_the_dashboard_asks_in_promql(tmp_path: Path) -> None:
    """Every expression of a panel can be parsed, with Grafana's interval filled in."""
    dashboard = json.loads((DEPLOY / "grafana" / "walbatch.json").read_text())
    rules = [
        {"record": f"panel{panel['id']}:{target['refId']}", "expr": target["expr"].replace("$__rate_interval", "5m")}
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = promtool("check", "rules", tmp_path / "rules.yml")
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout
