"""The file of destinations: what it can say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from destinations_file import ARCHIVE, MIXPANEL, STDOUT, one, problems, written
from pydantic import SecretStr
from wrong_settings import CANARY, secret_file

from walbatch.destinations import MixpanelDestination, NdjsonDestination, StdoutDestination, configured, read
from walbatch.errors import ConfigurationError
from walbatch.event import Kind
from walbatch.routing import EVERYTHING, Filter
from walbatch.settings import Settings


def test_every_key_of_a_mixpanel_project(tmp_path: Path) -> None:
    """Each key has its effect; durations are texts or seconds, and words may be in any case."""
    found = one(
        tmp_path,
        f"""
        [destinations.a]
        type = "mixpanel"
        token = "t"
        service_account = "account.1.mp-service-account"
        service_secret = "{CANARY}"
        project_id = 7
        region = "EU"
        url = "https://proxy.example.com/"
        timeout = "1m30s"
        unknown_outcomes = "Hold"
        only = ["Signed Up"]
        never = ["debug *", "test *"]
        kinds = ["events", "groups"]
        formerly = "b"
        """,
    )
    assert found == MixpanelDestination(
        token=SecretStr("t"),
        service_account="account.1.mp-service-account",
        service_secret=SecretStr(CANARY),
        project_id=7,
        region="eu",
        url="https://proxy.example.com",
        timeout=90.0,
        unknown_outcomes="hold",
        only=("Signed Up",),
        never=("debug *", "test *"),
        kinds=("events", "groups"),
        formerly="b",
    )
    assert found.filter == Filter(("Signed Up",), ("debug *", "test *"), frozenset({Kind.EVENT, Kind.GROUP}))
    assert CANARY not in f"{found!r} {found} {found.model_dump()}"


def test_defaults(tmp_path: Path) -> None:
    """What is not given has its documented default, and there is no filter."""
    project, archive = one(tmp_path, MIXPANEL), one(tmp_path, ARCHIVE)
    assert isinstance(project, MixpanelDestination)
    assert (project.region, project.url, project.timeout, project.unknown_outcomes) == ("us", None, 30.0, "retry")
    assert isinstance(archive, NdjsonDestination)
    assert (archive.rotate_size, archive.rotate_every) == (256 * 2**20, 86_400.0)
    assert project.filter == archive.filter == one(tmp_path, STDOUT).filter == EVERYTHING


@pytest.mark.parametrize(
    ("line", "size", "every"),
    [
        ('rotate_size = "100MiB"', 100 * 2**20, 86_400.0),
        ("rotate_size = 2000000", 2_000_000, 86_400.0),
        ('rotate_size = "2000000"', 2_000_000, 86_400.0),
        ("rotate_every = 90", 256 * 2**20, 90.0),
        ("rotate_every = 1.5", 256 * 2**20, 1.5),
        ('rotate_every = "1h"', 256 * 2**20, 3600.0),
    ],
)
def test_sizes_and_durations_are_texts_or_numbers(tmp_path: Path, line: str, size: int, every: float) -> None:
    """A plain number is bytes or seconds, as everywhere else."""
    archive = one(tmp_path, ARCHIVE + line)
    assert isinstance(archive, NdjsonDestination)
    assert (archive.rotate_size, archive.rotate_every) == (size, every)


def test_paths_count_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not matter where the server is started; an absolute path stays what it is."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "elsewhere").mkdir()
    secret_file(tmp_path / "etc" / "token", f"{CANARY}\n")
    text = (
        '[destinations.a]\ntype = "mixpanel"\ntoken_file = "token"\n'
        '[destinations.b]\ntype = "ndjson"\ndirectory = "archive"\n'
        f'[destinations.c]\ntype = "ndjson"\ndirectory = "{tmp_path}/c"\n'
    )
    written(tmp_path / "etc", text)
    monkeypatch.chdir(tmp_path / "elsewhere")
    a, b, c = read(Path("../etc/destinations.toml")).values()
    assert isinstance(a, MixpanelDestination)
    assert a.token == SecretStr(CANARY)
    assert isinstance(b, NdjsonDestination)
    assert b.directory.resolve() == tmp_path / "etc" / "archive"
    assert isinstance(c, NdjsonDestination)
    assert c.directory == tmp_path / "c"


def test_the_order_of_the_file_is_kept(tmp_path: Path) -> None:
    """Destinations are shown in the order in which they were written down."""
    text = STDOUT.replace(".a]", ".z]") + MIXPANEL + ARCHIVE.replace(".a]", ".m-1_x]")
    assert list(read(written(tmp_path, text))) == ["z", "a", "m-1_x"]


def test_windows_text_is_text(tmp_path: Path) -> None:
    """A byte order mark and carriage returns change nothing."""
    assert one(tmp_path, "\ufeff" + STDOUT.replace("\n", "\r\n")) == StdoutDestination()


@pytest.mark.parametrize(
    ("table", "line", "problem"),
    [
        (MIXPANEL, "timeout = true", 'timeout: must be a duration, such as "30s"'),
        (MIXPANEL, "timeout = 07:32:00", 'timeout: must be a duration, such as "30s"'),
        (MIXPANEL, "timeout = nan", "timeout: must be at least 10ms"),
        (MIXPANEL, "timeout = inf", "timeout: must be at most 10m"),
        (MIXPANEL, "timeout = 0", "timeout: must be at least 10ms"),
        (MIXPANEL, 'timeout = "soon"', "timeout: is not a duration; write 200ms"),
        (MIXPANEL, 'region = "mars"', "region: must be 'us', 'eu' or 'in'"),
        (MIXPANEL, "region = 1", "region: must be 'us', 'eu' or 'in'"),
        (MIXPANEL, 'unknown_outcomes = "drop"', "unknown_outcomes: must be 'retry' or 'hold'"),
        (MIXPANEL, f'url = "https://user:{CANARY}@host"', "url: must hold no user or password"),
        (MIXPANEL, f'url = "http://{CANARY}.example.com"', "url: must begin with https://"),
        (MIXPANEL, "url = 5", "url: must be a text in quotes"),
        (MIXPANEL, "service_account = 5\nservice_secret = 5\nproject_id = 5", "service_account: must be a text in"),
        (MIXPANEL, "only = 'Signed Up'", 'only: must be a list of texts, such as ["a", "b"]'),
        (MIXPANEL, "never = [5]", "never: must be a text in quotes"),
        (MIXPANEL, "never = ['']", "never: must not be empty"),
        (MIXPANEL, "kinds = 'events'", "kinds: must be a list of texts"),
        (MIXPANEL, "kinds = []", "kinds: must not be empty"),
        (MIXPANEL, "kinds = ['event']", "kinds: must be 'events', 'profiles' or 'groups'"),
        (MIXPANEL, "formerly = ['b']", "formerly: must be a text in quotes"),
        (MIXPANEL, "formerly = ''", "formerly: must not be empty"),
        (MIXPANEL, "tokn = 1", "tokn: is not known here"),
        (MIXPANEL, "stdout = 1", "stdout: is not known here"),
        (MIXPANEL, 'directory = "d"', "directory: is not known here"),
        (MIXPANEL, "filter.only = ['b']", "filter: is not known here"),
        (ARCHIVE, "rotate_size = 100", "rotate_size: must be at least 1MiB"),
        (ARCHIVE, 'rotate_size = "2TiB"', "rotate_size: must be at most 1TiB"),
        (ARCHIVE, 'rotate_size = "64M"', "rotate_size: is not a size; write 64MiB"),
        (ARCHIVE, "rotate_size = true", "rotate_size: must be a whole number"),
        (ARCHIVE, "rotate_size = 2e6", "rotate_size: must be a whole number"),
        (ARCHIVE, "rotate_every = 0.5", "rotate_every: must be at least 1s"),
        (ARCHIVE, 'rotate_every = "367d"', "rotate_every: must be at most 366d"),
        (ARCHIVE, f'token = "{CANARY}"', "token: is not known here"),
        (ARCHIVE, 'token_file = "token"', "token_file: is not known here"),
        (STDOUT, 'directory = "d"', "directory: is not known here"),
        ("[destinations.a]\n", 'type = "ndjson"', "directory: is missing"),
        ("[destinations.a]\n", 'type = "ndjson"\ndirectory = 5', "directory: must be a text in quotes"),
        ("[destinations.a]\n", 'type = "ndjson"\ndirectory = ""', "directory: is no path; name a directory"),
        ("[destinations.a]\n", 'type = "ndjson"\ndirectory = "a\\u0000"', "directory: is no path"),
        ("[destinations.a]\n", 'directory = "d"', "type: must be one of mixpanel, ndjson, stdout"),
        ("[destinations.a]\n", f'type = "{CANARY}"', "type: must be one of mixpanel, ndjson, stdout"),
        ("[destinations.a]\n", "type = ['ndjson']", "type: must be one of mixpanel, ndjson, stdout"),
        ("[destinations.a]\n", "type = {}", "type: must be one of mixpanel, ndjson, stdout"),
    ],
)
def test_wrong_value(tmp_path: Path, table: str, line: str, problem: str) -> None:
    """The key is told with what is wrong, and never with its value; nothing that was meant as text is guessed."""
    assert problems(tmp_path, f"{table}{line}\n")[0].startswith(problem)


@pytest.mark.parametrize("name", ["A", "-a", "_a", '""', '"a b"', '"a.b"', '"ä"', "a" * 64, '"a\\n"'])
def test_wrong_name(tmp_path: Path, name: str) -> None:
    """A name is short and plain: it is shown in every line of the log, and typed after --destination."""
    text = "\n".join(problems(tmp_path, f'[destinations.{name}]\ntype = "stdout"\n'.replace("\\n", "%")))
    assert "has a name of other than 1 to 63 lower-case letters" in text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must have a table [destinations.NAME] for each destination"),
        ("[destinations]", "must have a table [destinations.NAME]"),
        ("destinations = 1", "must have a table [destinations.NAME]"),
        (f'{MIXPANEL}[other]\nx = "{CANARY}"', "must have a table [destinations.NAME] for each destination; other is"),
        (f'[[destinations.a]]\ntype = "{CANARY}"', "must be a table"),
        ("destinations.a = 5", "must be a table"),
        (f'token = "{CANARY}', "is not TOML: "),
        (f"token = {CANARY}", "is not TOML: "),
        (f"{MIXPANEL}{MIXPANEL}", "is not TOML: "),
        (f'x = "{CANARY}"\nd = 2026-13-45\n', "is not TOML: "),
        (f'token = "{CANARY}\xff"'.encode("latin-1"), "is not TOML in UTF-8"),
        (f'token = "{CANARY}"\nn = {"9" * 5000}', "is not TOML"),
    ],
)
def test_no_file_of_destinations(tmp_path: Path, text: str | bytes, problem: str) -> None:
    """What is no TOML, or has no destinations, is refused with the place and without what stands there."""
    (told,) = problems(tmp_path, text)
    assert told.startswith(problem)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The setting is named, since it is what has to be corrected."""
    for path, reason in ((tmp_path / "none.toml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError) as raised:
            read(path)
        assert str(raised.value).startswith(f"WALBATCH_DESTINATIONS_FILE: {path}: {reason}")
        assert raised.value.__context__ is None


def test_several_problems_are_told_at_once(tmp_path: Path) -> None:
    """Someone who has made seven mistakes reads of seven, each with its destination and its key."""
    text = f"""
        [destinations.A]
        type = "kafka"
        [destinations.b]
        type = "mixpanel"
        token = "{CANARY}"
        service_account = "s"
        region = "mars"
        timeout = "{CANARY}"
        [destinations.c]
        type = "ndjson"
        formerly = "b"
        directory = "d"
    """
    name, *others = problems(tmp_path, text, 0o644)
    assert name.startswith("[destinations.A] has a name of other than")
    assert [line.split(": ")[0] for line in others] == [
        "[destinations.A] type",
        "[destinations.b] token",
        "[destinations.b] service_secret",
        "[destinations.b] region",
        "[destinations.b] timeout",
        "[destinations.c] formerly",
    ]


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ('type = "stdout"', "[destinations.b] writes to the same place as [destinations.a]"),
        ('type = "ndjson"\ndirectory = "x/../archive/"', "[destinations.c] writes to the same place as"),
        ('type = "ndjson"\ndirectory = "link"', "[destinations.c] writes to the same place as"),
        ('type = "ndjson"\ndirectory = "d"\nformerly = "a"', "[destinations.c] formerly: a is a destination of this"),
        ('type = "ndjson"\ndirectory = "d"\nformerly = "c"', "[destinations.c] formerly: c is a destination of this"),
        ('type = "ndjson"\ndirectory = "d"\nformerly = "old"', "[destinations.c] formerly: is that of [destinations."),
    ],
)
def test_what_two_destinations_cannot_share(tmp_path: Path, second: str, problem: str) -> None:
    """Neither the place that they write to, however it is written, nor the name that they had."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "link").symlink_to("archive")
    first = f"{STDOUT}formerly = 'old'\n" + ARCHIVE.replace(".a]", ".b]")
    text = STDOUT + f"[destinations.b]\n{second}\n" if "stdout" in second else f"{first}[destinations.c]\n{second}\n"
    (told,) = problems(tmp_path, text)
    assert told.startswith(problem)


def test_two_projects_may_be_the_same(tmp_path: Path) -> None:
    """Two filters on one project are no mistake."""
    assert len(read(written(tmp_path, MIXPANEL + MIXPANEL.replace(".a]", ".b]")))) == 2


def test_one_destination_from_the_environment(tmp_path: Path) -> None:
    """Without a file there is one destination, named after what it is; with a file, those of the file."""
    settings = Settings(mixpanel_token=SecretStr("t"), mixpanel_region="in", unknown_outcomes="hold")
    expected = MixpanelDestination(token=SecretStr("t"), region="in", unknown_outcomes="hold")
    assert configured(settings) == {"mixpanel": expected}
    assert configured(Settings(destination="stdout")) == {"stdout": StdoutDestination()}
    path = written(tmp_path, STDOUT)
    assert configured(Settings(destinations_file=path)) == {"a": StdoutDestination()}
