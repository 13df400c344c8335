"""Read the files in deploy/, and take their settings as the server does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from walbatch.metrics.families import Family, families
from walbatch.settings import Settings, load
from walbatch.units import parse_duration_s

DEPLOY = Path(__file__).parents[2] / "deploy"
EXTRA_LABELS = {"job", "instance", "le"}
"""Labels that Prometheus adds, or that a histogram has."""

PROCESS = {
    *("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"),
    *("process_open_fds", "process_max_fds"),
}
"""What the client library tells of the process."""


def documents(path: str) -> list[dict[str, Any]]:
    """Return the YAML documents of a file in deploy/."""
    return list(yaml.safe_load_all((DEPLOY / path).read_text()))


def document(path: str) -> dict[str, Any]:
    """Return the only YAML document of a file in deploy/."""
    (only,) = documents(path)
    return only


def operations(path: str) -> list[dict[str, Any]]:
    """Return the operations of a JSON patch in deploy/."""
    found: list[dict[str, Any]] = yaml.safe_load((DEPLOY / path).read_text())
    return found


def env_file(path: str) -> dict[str, str]:
    """Return the variables of an env file in deploy/."""
    return {name: value or "" for name, value in dotenv_values(DEPLOY / path, interpolate=False).items()}


def settings(environ: Mapping[str, str]) -> Settings:
    """Return what `walbatch serve` makes of these variables, which it must find right."""
    return load(environ=environ, env_file=None, need_destination=True)


def seconds(duration: str) -> float:
    """Return a duration as compose and systemd write it, `40s` or `45`, in seconds."""
    return parse_duration_s(f"{duration}s" if duration.isdecimal() else duration)


def _samples(family: Family) -> list[str]:
    """Return the names that can be asked for."""
    if family.type != "histogram":
        return [family.name]
    return [f"{family.name}_{suffix}" for suffix in ("bucket", "count", "sum")]


class Expression:
    """What a PromQL expression asks for, without understanding the rest of it."""

    def __init__(self, text: str) -> None:
        self.text = text
        bare = re.sub(r'"[^"]*"', '""', text)
        self.metrics = set(re.findall(r"\b(?:walbatch|grpc_server|process)_[a-z_]+\b|\bup\b", bare))
        self.matchers: list[tuple[str, str]] = re.findall(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', text)
        groups = re.findall(r"\bby \(([^)]*)\)", bare)
        self.labels = {name for name, _ in self.matchers} | {
            name.strip() for group in groups for name in group.split(",")
        }

    def families(self) -> list[Family]:
        """Return our metrics in it. Raises: KeyError with the name of one that the code does not have."""
        samples = {sample: family for family in families().values() for sample in _samples(family)}
        return [samples[name] for name in self.metrics - PROCESS - {"up"}]

    def unknown_labels(self) -> set[str]:
        """Return the labels that none of its metrics has."""
        return self.labels - EXTRA_LABELS - {label for family in self.families() for label in family.labels}

    def unknown_values(self) -> list[tuple[str, str]]:
        """Return the matchers for a value that the label never has."""
        known = {label: values for family in self.families() for label, values in family.labels.items()}
        return [
            (label, value)
            for label, value in self.matchers
            if known.get(label) and not value.startswith("$") and value not in known[label]
        ]
