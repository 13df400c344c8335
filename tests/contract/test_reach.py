"""What `walbatch doctor` says of each destination: asked over real sockets, and nothing is stored there."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from bad_destination import destinations
from fakes_in_thread import served
from programs import free_port

from walbatch import reach
from walbatch.destinations import MixpanelDestination, NdjsonDestination, StdoutDestination
from walbatch.diagnosis import Finding, Status
from walbatch.sinks.mixpanel import Reply
from walbatch.testing.mixpanel import FakeMixpanel
from walbatch.testing.projects import Project, ServiceAccount

TOKEN = "canary-0123456789abcdef"
SECRET = "canary-fedcba9876543210"


def project(url: str, **more: object) -> MixpanelDestination:
    """A destination with a token."""
    return MixpanelDestination.model_validate({"url": url, "token": TOKEN, "timeout": 5.0, **more})


def found(destination: MixpanelDestination | NdjsonDestination | StdoutDestination) -> Finding:
    """What is found out about a destination; no credential is in it."""
    (finding,) = reach.look({"there": destination})
    assert finding.check == "destination"
    assert finding.text.startswith("there: ")
    assert "canary" not in finding.text + finding.fix
    assert bool(finding.fix) is (finding.status is not Status.OK)
    return finding


@contextmanager
def fake(**options: object) -> Iterator[tuple[FakeMixpanel, str]]:
    """A fake Mixpanel, and its address."""
    made = FakeMixpanel(**options)  # type: ignore[arg-type]
    with served(made) as (url,):
        yield made, url


def test_a_token_that_is_taken() -> None:
    """One request says so, and nothing is accepted by it."""
    with fake(token=TOKEN) as (made, url):
        finding = found(project(url))
    assert (finding.status, finding.text) == (Status.OK, f"there: {url} takes the token")
    assert made.requests == {"/import": 1}
    assert made.answers == {400: 1}
    assert not made.accepted.total()
    assert not made.lost.total()
    assert not made.records


def test_a_token_that_is_not_taken() -> None:
    """That fails: nothing would ever go out."""
    with fake(token="another") as (_, url):
        finding = found(project(url))
    assert finding.status is Status.FAIL
    assert "401 Unauthorized, check the project token or service account, and the region" in finding.text
    assert "walbatch config show" in finding.fix


def test_the_token_of_another_region() -> None:
    """Each region refuses the projects of the others."""
    with fake(projects=[Project(1, TOKEN, region="eu")], region="us") as (_, url):
        assert found(project(url)).status is Status.FAIL
    with fake(projects=[Project(1, TOKEN, region="eu")], region="eu") as (_, url):
        assert found(project(url)).status is Status.OK


def test_a_service_account_and_the_token_beside_it() -> None:
    """Each is tried by itself, since events go by the one and updates by the other."""
    known = Project(7, TOKEN, service_accounts=(ServiceAccount("bot", SECRET),))
    account = {"service_account": "bot", "service_secret": SECRET, "project_id": 7}
    with fake(projects=[known]) as (made, url):
        assert found(project(url, **account)).text.endswith("takes the service account and the token")
        assert made.requests == {"/import": 2}
        wrong = found(project(url, **account | {"service_secret": "wrong-secret"}))
        assert (wrong.status, "asked with the service account" in wrong.text) == (Status.FAIL, True)
        wrong = found(project(url, **account | {"token": "wrong-token"}))
        assert (wrong.status, "asked with the token" in wrong.text) == (Status.FAIL, True)
        alone = project(url, **account).model_copy(update={"token": None})
        assert found(alone).text.endswith("takes the service account")
        assert not made.records


@pytest.mark.parametrize("status", [301, 302, 307, 403, 404, 405])
def test_an_answer_that_needs_a_person(status: int) -> None:
    """Redirects are not followed, with credentials in hand."""
    with fake() as (made, url):
        made.script.append(Reply(status, {"location": "https://elsewhere.test/", "content-type": "text/plain"}))
        finding = found(project(url))
    assert (finding.status, f" {status} " in finding.text) == (Status.FAIL, True)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_an_outage(status: int) -> None:
    """It is a warning: delivery goes on by itself, and nothing is lost."""
    with fake(fail_rate=1.0, status=status) as (_, url):
        finding = found(project(url))
    assert (finding.status, f" {status} " in finding.text) == (Status.WARN, True)
    assert "nothing is lost" in finding.fix


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "https://mixpanel.invalid"])
def test_nobody_is_there(url: str) -> None:
    """Neither a refused connection nor a name that is not known loses anything."""
    finding = found(project(url.format(port=free_port())))
    assert (finding.status, "cannot connect" in finding.text) == (Status.WARN, True)


@pytest.mark.parametrize("mode", ["no answer", "a reset", "half a body", "200 with a page", "400 with a page"])
def test_something_else_answers(tmp_path: Path, mode: str) -> None:
    """What is no answer of Mixpanel's is no verdict on the credentials; the doctor does not wait for ever."""
    with destinations() as there:
        one = there.add(tmp_path / "out", mode)
        finding = found(project(f"http://127.0.0.1:{one.port}", timeout=0.3))
    assert finding.status is Status.WARN


def test_something_takes_what_mixpanel_refuses(tmp_path: Path) -> None:
    """An event without a name is taken by no Mixpanel: that is told."""
    with destinations() as there:
        one = there.add(tmp_path / "out", "good")
        finding = found(project(f"http://127.0.0.1:{one.port}"))
    assert (finding.status, "without a name" in finding.text) == (Status.WARN, True)


def test_a_certificate_that_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails, and not a byte of the credentials is sent; with its authority named it is an answer like any other."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with destinations() as there:
        one = there.add(tmp_path / "out", "500", context)
        finding = found(project(f"https://127.0.0.1:{one.port}"))
        assert (finding.status, "certificate" in finding.text.lower()) == (Status.FAIL, True)
        assert "SSL_CERT_FILE" in finding.fix
        assert not one.received
        authorities = tmp_path / "authorities.pem"
        authority.cert_pem.write_to_path(authorities)
        monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
        assert found(project(f"https://127.0.0.1:{one.port}")).status is Status.WARN
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
        unreadable = found(project(f"https://127.0.0.1:{one.port}"))
        assert (unreadable.status, "SSL_CERT_FILE" in unreadable.text) == (Status.FAIL, True)


def test_an_answer_that_repeats_the_token() -> None:
    """It is told without it."""
    with fake() as (made, url):
        made.script.append(Reply(401, {"content-type": "application/json"}, f'{{"error":"no {TOKEN}"}}'.encode()))
        assert found(project(url)).status is Status.FAIL


def test_an_address_with_a_path() -> None:
    """Only where it leads is told: a path may be a secret."""
    with fake() as (_, url):
        assert found(project(f"{url}/canary-path")).text.startswith(f"there: {url}/...")


def test_an_archive_and_standard_output(tmp_path: Path) -> None:
    """A directory that is there or can be made is ok; one in the place of a file is not."""
    (tmp_path / "file").touch()
    assert found(StdoutDestination()).status is Status.OK
    assert found(NdjsonDestination(type="ndjson", directory=tmp_path)).status is Status.OK
    made = found(NdjsonDestination(type="ndjson", directory=tmp_path / "not" / "yet"))
    assert (made.status, made.text.endswith("which `walbatch serve` makes")) == (Status.OK, True)
    assert not (tmp_path / "not").exists()
    assert found(NdjsonDestination(type="ndjson", directory=tmp_path / "file")).status is Status.FAIL


def test_each_destination_has_its_own_line() -> None:
    """In their order, whatever becomes of the others."""
    with fake(token=TOKEN) as (_, url), fake(fail_rate=1.0) as (_, broken):
        told = reach.look({"a": project(broken), "b": StdoutDestination(), "c": project(url)})
    assert [(one.text[0], one.status) for one in told] == [("a", Status.WARN), ("b", Status.OK), ("c", Status.OK)]
