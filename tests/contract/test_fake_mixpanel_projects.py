"""Who may do what at the fake Mixpanel: projects, credentials, roles, regions, rates."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from fake_requests import BAD, EVENT, NOW_MS, UPDATE, client_of, event

from walbatch.errors import ConfigurationError
from walbatch.testing.clock import FakeClock
from walbatch.testing.mixpanel import FakeMixpanel
from walbatch.testing.projects import Project, Region, ServiceAccount, load_projects

STRICT = "/import?strict=1"
SHOP = Project(
    1,
    "shop-token",
    "shop-secret",
    (
        ServiceAccount("boss", "b", "owner"),
        ServiceAccount("ops", "o", "admin"),
        ServiceAccount("reader", "r", "consumer"),
    ),
)
BLOG = Project(2, "blog-token", region="eu", id_mode="simplified")
GAME = Project(3, "game-token")


@pytest.fixture
def fake() -> FakeMixpanel:
    """Return the US edge of two projects there, and one elsewhere."""
    return FakeMixpanel(projects=(SHOP, BLOG, GAME))


ATTEMPTS: dict[str, tuple[str, str, str, str]] = {
    "token": ("", "shop-token", "", ""),
    "secret": ("", "shop-secret", "", ""),
    "owner": ("&project_id=1", "boss", "b", ""),
    "admin": ("&project_id=1", "ops", "o", ""),
    "token with its project": ("&project_id=1", "shop-token", "", ""),
    "role that may not": ("&project_id=1", "reader", "r", "Invalid service account credentials"),
    "wrong secret": ("&project_id=1", "ops", "x", "Invalid service account credentials"),
    "no project": ("", "ops", "o", "Invalid service account credentials"),
    "another project": ("&project_id=3", "ops", "o", "Invalid service account credentials"),
    "nobody": ("&project_id=1", "who", "x", "Not a valid service account username"),
    "unknown token": ("", "x", "", "Invalid credentials"),
    "token with a password": ("", "shop-token", "x", "Not a valid service account username"),
    "token of another region": ("", "blog-token", "", "Invalid credentials"),
}


@pytest.mark.parametrize(("query", "user", "password", "error"), ATTEMPTS.values(), ids=ATTEMPTS)
async def test_who_may_import(
    fake: FakeMixpanel, http: httpx.AsyncClient, *, query: str, user: str, password: str, error: str
) -> None:
    """The token or the secret alone; a service account with its project, if it is an owner or an admin."""
    answer = await http.post(f"{STRICT}{query}", json=[EVENT], auth=httpx.BasicAuth(user, password))
    assert answer.status_code == (401 if error else 200)
    assert answer.json().get("error", "") == error
    assert len(fake.data(1).events()) == (0 if error else 1)


async def test_basic_credentials_need_no_base64(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """What a person types by hand is understood; the colon after the token matters, and other schemes do not."""
    values = [
        "Basic shop-token:",
        "basic shop-token:",
        "Basic shop-token",
        "Basic c2hvcC10b2tlbg==",
        "Bearer shop-token:",
    ]
    statuses = [
        (await http.post(STRICT, json=[EVENT], headers={"Authorization": value})).status_code for value in values
    ]
    assert statuses == [200, 200, 401, 401, 401]


async def test_records_go_to_the_project_of_their_token(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """One request to /track or /engage can feed several projects, and a stranger's records are lost with a success."""
    tokens = ["shop-token", "game-token", "stranger", "blog-token"]
    assert (await http.post("/track", json=[event(token=token) for token in tokens])).text == "1"
    assert (await http.post("/engage", json=[UPDATE | {"$token": token} for token in tokens])).text == "1"
    assert [len(fake.data(number).events()) for number in (1, 2, 3)] == [1, 0, 1]
    assert [list(fake.data(number).profiles) for number in (1, 2, 3)] == [["u1"], [], ["u1"]]
    assert dict(fake.lost) == {"/track": 2, "/engage": 2}
    assert len(fake.records) == 4


@pytest.mark.parametrize("region", ["us", "in"])
async def test_the_wrong_region_says_nothing(region: Region) -> None:
    """An import is refused there; tracked events and updates get their success, and are gone."""
    fake = FakeMixpanel(projects=[BLOG], region=region)
    auth = httpx.BasicAuth("blog-token", "")
    async with client_of(fake) as http:
        refused = await http.post(STRICT, json=[EVENT], auth=auth)
        tracked = await http.post("/track?verbose=1", json=event(token="blog-token"))
        updated = await http.post("/engage", json=UPDATE | {"$token": "blog-token"})
        fake.region = "eu"
        at_home = await http.post(STRICT, json=[EVENT], auth=auth)
    assert (refused.status_code, refused.json()["error"]) == (401, "Invalid credentials")
    assert (tracked.status_code, tracked.json(), updated.text) == (200, {"error": None, "status": 1}, "1")
    assert at_home.status_code == 200
    assert [one.arrival.endpoint for one in fake.data().events()] == ["/import"]


async def test_a_project_has_its_own_way_to_merge_ids(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """The mode is the project's, not the edge's."""
    fake.region = "eu"
    sent = event(**{"$user_id": "u9"})
    await http.post(STRICT, json=[sent], auth=httpx.BasicAuth("blog-token", ""))
    assert fake.data(2).events()[0].distinct_id == "u9"
    with pytest.raises(KeyError, match=r"one of \[1, 2, 3\]"):
        fake.data()


async def test_the_rate_of_a_project() -> None:
    """Whoever sent too much within a minute gets a 429, the others do not; refused events count, a minute later not."""
    clock = FakeClock(NOW_MS)
    fake = FakeMixpanel(projects=(SHOP, GAME), max_events_per_minute=3, clock=clock)

    async def send(count: int, token: str) -> httpx.Response:
        return await http.post(STRICT, json=[BAD] * count, auth=httpx.BasicAuth(token, ""))

    async with client_of(fake) as http:
        assert [(await send(2, SHOP.token)).status_code, (await send(1, SHOP.token)).status_code] == [400, 400]
        limited = await send(1, SHOP.token)
        assert (await send(1, GAME.token)).status_code == 400
        tracked = await http.post("/track", json=event(token="shop-token"))
        await clock.advance(60.0)
        assert (await send(1, SHOP.token)).status_code == 400
    assert (limited.status_code, tracked.status_code) == (429, 429)
    assert limited.json()["error"].startswith("Project exceeded rate limits.")
    assert fake.data(1).events() == []


async def test_the_rate_in_bytes() -> None:
    """Bytes of unpacked records count, whatever their number."""
    fake = FakeMixpanel(max_bytes_per_minute=len(json.dumps(EVENT)), clock=FakeClock(NOW_MS))
    async with client_of(fake) as http:
        statuses = [(await http.post(STRICT, content=json.dumps([EVENT]))).status_code for _ in range(2)]
    assert statuses == [200, 429]


def test_projects_come_from_a_file(tmp_path: Path) -> None:
    """The keys of the file are the fields of a project."""
    path = tmp_path / "projects.json"
    accounts = [{"username": "ops", "secret": "s", "role": "owner"}]
    shop = {"id": 1, "token": "t1", "api_secret": "a", "service_accounts": accounts}
    path.write_text(json.dumps([shop, {"id": 2, "token": "t2", "region": "in", "id_mode": "simplified"}]))
    assert load_projects(path) == (
        Project(1, "t1", "a", (ServiceAccount("ops", "s", "owner"),)),
        Project(2, "t2", region="in", id_mode="simplified"),
    )


WRONG_FILES: dict[str, tuple[str, str]] = {
    "no file": ("", "No such file"),
    "no JSON": ("[", "Invalid JSON"),
    "empty": ("[]", "name at least one project"),
    "no token": ('[{"id": 1}]', r"\[0\]: give each project an id from 1 on and a token"),
    "region": ('[{"id": 1, "token": "sekrit", "region": "mars"}]', r"\[0\].region: Input should be 'us', 'eu' or 'in'"),
    "role": (
        '[{"id": 1, "token": "sekrit", "service_accounts": [{"username": "u", "secret": "sekrit", "role": "x"}]}]',
        r"\[0\].service_accounts\[0\].role",
    ),
    "same id": ('[{"id": 1, "token": "sekrit"}, {"id": 1, "token": "b"}]', "two projects have the same id"),
    "same token": ('[{"id": 1, "token": "sekrit"}, {"id": 2, "token": "sekrit"}]', "two projects have the same token"),
}


@pytest.mark.parametrize(("text", "error"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_of_projects(tmp_path: Path, text: str, error: str) -> None:
    """The error names the file and the place, and repeats no secret."""
    path = tmp_path / "projects.json"
    if text:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=error) as raised:
        load_projects(path)
    assert str(raised.value).startswith(str(path))
    assert "sekrit" not in str(raised.value)
    assert "secret=" not in repr(SHOP)


@pytest.mark.parametrize(
    ("query", "status", "status_word"), [("strict=1", 400, "Bad Request"), ("strict=0&verbose=1", 200, 0)]
)
async def test_an_event_of_nothing_only_checks_the_credentials(
    fake: FakeMixpanel, query: str, status: int, status_word: object
) -> None:
    """It is refused after the credentials were taken, as `walbatch doctor` relies on, and nothing is accepted of it."""
    async with client_of(fake) as client:
        taken = await client.post(f"/import?{query}", json=[{}], auth=("shop-token", ""))
        refused = await client.post(f"/import?{query}", json=[{}], auth=("blog-token", ""))
    body = taken.json()
    failed = body.pop("failed_records", [])
    error = "some data points in the request failed validation"
    assert (taken.status_code, body) == (
        status,
        {"code": status, "error": error, "num_records_imported": 0, "status": status_word},
    )
    assert [one["index"] for one in failed] == [0] * (status == 400)
    assert (refused.status_code, refused.json()["error"]) == (401, "Invalid credentials")
    assert not fake.accepted.total()
    assert not fake.records
