"""Mixpanel's projects, and who may write into them. Pure but for reading the file of projects.

Sources: https://docs.mixpanel.com/reference/import-events (credentials), the page 401 Unauthorized
(https://docs.mixpanel.com/docs/troubleshooting/errors), and https://docs.mixpanel.com/docs/privacy/eu-residency.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from walbatch.errors import ConfigurationError
from walbatch.testing.files import parsed

Region = Literal["us", "eu", "in"]

API_HOSTS: dict[Region, str] = {"us": "api.mixpanel.com", "eu": "api-eu.mixpanel.com", "in": "api-in.mixpanel.com"}

INVALID = "Invalid credentials"
INVALID_ACCOUNT = "Invalid service account credentials"
UNKNOWN_ACCOUNT = "Not a valid service account username"


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A user for programs. Owners and admins may import; everyone may export."""

    username: str
    secret: str = field(repr=False)
    role: Literal["owner", "admin", "analyst", "consumer"] = "admin"


@dataclass(frozen=True, slots=True)
class Project:
    """A project. Id 0 answers to any project_id; without any credential it takes all of them, and any token."""

    id: int = 0
    token: str = field(default="", repr=False)
    api_secret: str = field(default="", repr=False)
    service_accounts: tuple[ServiceAccount, ...] = ()
    region: Region = "us"
    id_mode: Literal["original", "simplified"] = "original"

    @property
    def simplified(self) -> bool:
        """Whether ids are merged the simplified way, from `$user_id` and `$device_id`."""
        return self.id_mode == "simplified"

    def may_import(self, user: str, password: str, project_id: str) -> bool:
        """Say whether these credentials import: the token or the API secret alone, or an owner or admin."""
        if not (self.token or self.api_secret or self.service_accounts):
            return True
        account = self._account(user, password, project_id)
        return self._key(user, password) or (account is not None and account.role in ("owner", "admin"))

    def may_export(self, user: str, password: str, project_id: str) -> bool:
        """Say whether these credentials export: the API secret, or any service account.

        Where there is neither, everyone may who names the token or no user at all: else nobody could.
        """
        if not (self.api_secret or self.service_accounts):
            return user in ("", self.token) or not self.token
        by_secret = self._key(user, password) and user == self.api_secret
        return by_secret or self._account(user, password, project_id) is not None

    def _key(self, user: str, password: str) -> bool:
        return bool(user) and not password and user in (self.token, self.api_secret)

    def _account(self, user: str, secret: str, project_id: str) -> ServiceAccount | None:
        if project_id != str(self.id) and not (project_id and self.id == 0):
            return None
        return next((one for one in self.service_accounts if (one.username, one.secret) == (user, secret)), None)


class Refused(Exception):
    """Credentials that open nothing. The text is the error of the 401."""


class Directory:
    """The projects that one region's edge can see."""

    def __init__(self, projects: Sequence[Project], region: Region) -> None:
        self._projects = [project for project in projects if project.region == region]

    def by_token(self, token: object) -> Project | None:
        """Return the project of a record's token, or None if the record is lost: nobody here has this token."""
        return next((one for one in self._projects if one.token in ("", token)), None)

    def importer(self, basic: str, project_id: str) -> Project:
        """Return the project that credentials ("user:password") may import into. Raises: Refused."""
        user, colon, password = basic.partition(":")
        for project in self._asked_for(project_id):
            if project.may_import(user if colon else "", password, project_id):
                return project
        raise self._refusal(user, password)

    def exporter(self, basic: str, project_id: str) -> Project:
        """Return the project that credentials may export from. Raises: Refused."""
        user, _, password = basic.partition(":")
        for project in self._asked_for(project_id):
            if project.may_export(user, password, project_id):
                return project
        raise self._refusal(user, password)

    def _asked_for(self, project_id: str) -> list[Project]:
        return [one for one in self._projects if not project_id or one.id == 0 or project_id == str(one.id)]

    def _refusal(self, user: str, password: str) -> Refused:
        if not password:
            return Refused(INVALID)
        known = any(user == account.username for project in self._projects for account in project.service_accounts)
        return Refused(INVALID_ACCOUNT if known else UNKNOWN_ACCOUNT)


def load_projects(path: Path) -> tuple[Project, ...]:
    """Read a JSON array of projects; the keys are the fields of `Project`, `id` and `token` are needed.

    Raises: ConfigurationError naming the file, the place in it, and what to write.
    """
    projects = parsed(path, TypeAdapter(tuple[Project, ...]))
    if not projects:
        raise ConfigurationError(f"{path}: name at least one project")
    for index, project in enumerate(projects):
        if project.id < 1 or not project.token:
            raise ConfigurationError(f"{path}: [{index}]: give each project an id from 1 on and a token")
    for name, values in (("id", [one.id for one in projects]), ("token", [one.token for one in projects])):
        if max(Counter(values).values()) > 1:
            raise ConfigurationError(f"{path}: two projects have the same {name}")
    return projects
