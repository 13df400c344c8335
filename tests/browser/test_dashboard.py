"""The dashboard as a person meets it: read, clicked, typed into, on a phone, in the dark, and without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import browsing
import pytest
from browsing import NARROW, Look, refusing
from playwright.sync_api import Page, expect
from programs import Site, eventually, site

Open = Callable[..., Look]
CANARY = "canary-2c9d10"


def lines(count: int, name: str = "Tick") -> str:
    """Events as `walbatch send` takes them; their values are easily found."""
    return "".join(
        f'{{"event": "{name}", "properties": {{"distinct_id": "{CANARY}-{n}", "plan": "{CANARY}", "n": {n}}}}}\n'
        for n in range(count)
    )


def token(here: Site) -> str:
    """The token of the running server."""
    return (here.data / "admin.token").read_text()


def confirm(page: Page, title: str) -> None:
    """Agree to what the dialog asks."""
    expect(page.locator("#dialog-title")).to_have_text(re.compile(title))
    page.locator("#dialog-confirm").click()


def test_it_says_how_the_server_is_doing(here: Site, url: str, look: Open) -> None:
    """The sentence is that of `walbatch stats`, the word says it shortly, and the footer has the facts."""
    page = look(url).page
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.locator(".sentence")).to_have_text("Delivering. Nothing is pending.")
    expect(page.locator("#state")).to_have_text("delivering")
    expect(page).to_have_title("walbatch: delivering")
    footer = page.locator("footer")
    expect(footer).to_contain_text(here.stats()["sqlite_version"])
    expect(footer).to_contain_text("fsynced")


def test_the_numbers_move_while_somebody_looks(here: Site, url: str, look: Open) -> None:
    """Events that are sent show up by themselves: as numbers, as batches, and in the picture."""
    page = look(url).page
    expect(page.locator("#batches-none")).to_be_visible()
    here.run("send", "-", text=lines(120))
    expect(page.locator("#destinations li")).to_contain_text("120 sent")
    expect(page.locator("[data-shown=received]")).not_to_have_text("0")
    first = page.locator("#batches tr").first
    expect(first).to_contain_text("mixpanel events")
    expect(first).to_contain_text("200")
    expect(page.locator("#chart path.in")).to_have_count(1, timeout=25_000)
    expect(page.locator("#chart-text")).to_contain_text("now 0 pending")


def test_delivery_is_paused_and_resumed(here: Site, url: str, look: Open) -> None:
    """After a confirmation and the token nothing goes out any more, until it is resumed."""
    page = look(url).page
    page.get_by_role("button", name="Pause delivery to mixpanel").click()
    confirm(page, "Pause delivery to mixpanel")
    page.locator("#dialog input[name=token]").fill(token(here))
    confirm(page, "Token")
    expect(page.locator("#said")).to_contain_text("paused")
    expect(page.locator("#state")).to_have_text("paused")
    here.run("send", "-", text=lines(5))
    expect(page.locator("[data-shown=pending]")).to_have_text("5")
    expect(page.locator("[data-shown=oldest]")).to_have_text(re.compile(r"^[1-9]"))  # five intervals long
    assert here.delivered() == []
    assert here.stats()["in_flight"] == 0
    page.get_by_role("button", name="Resume delivery to mixpanel").click()
    confirm(page, "Resume delivery to mixpanel")
    expect(page.locator("#state")).to_have_text("delivering")
    eventually(lambda: len(here.delivered()) == 5, "what waited is delivered")


def test_nothing_is_done_when_the_person_thinks_better_of_it(here: Site, url: str, look: Open) -> None:
    """Cancel, Escape, and no token: delivery goes on."""
    page = look(url).page
    for key in ("Enter", "Escape"):  # the focus is on Cancel
        page.get_by_role("button", name="Pause delivery to mixpanel").click()
        page.keyboard.press(key)
        expect(page.locator("#dialog")).to_be_hidden()
    page.get_by_role("button", name="Pause delivery to mixpanel").click()
    confirm(page, "Pause delivery")
    expect(page.locator("#dialog input[name=token]")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#dialog")).to_be_hidden()
    assert here.stats()["destinations"][0]["paused_at"] is None


def test_a_wrong_token_is_asked_for_again(here: Site, url: str, look: Open) -> None:
    """The old one of a server that was started again, for example; the page says why it asks."""
    person = look(url)
    page = person.page
    page.get_by_role("button", name="Pause delivery to mixpanel").click()
    confirm(page, "Pause delivery")
    page.locator("#dialog input[name=token]").fill("wrong")
    confirm(page, "Token")
    expect(page.locator("#dialog-text")).to_contain_text("not the token of the running server")
    page.locator("#dialog input[name=token]").fill(token(here))
    confirm(page, "Token")
    expect(page.locator("#state")).to_have_text("paused")
    assert [text for text in person.trouble if "401" not in text] == []
    person.trouble.clear()  # a browser tells of each 401 on its console


def test_the_token_in_the_address_leaves_no_trace_there(here: Site, look: Open) -> None:
    """It is kept for this tab alone, and not asked for again."""
    person = look(here.run("dashboard", "--with-token").stdout.strip())
    page = person.page
    expect(page.locator("#connection")).to_have_text("live")
    assert "token" not in page.url
    assert page.evaluate("history.length") <= 2
    assert page.evaluate("sessionStorage.getItem('walbatch.token')") == token(here)
    assert person.storage() == {"cookies": [], "origins": []}
    page.get_by_role("button", name="Flush what waits for mixpanel").click()
    confirm(page, "Flush to mixpanel")
    expect(page.locator("#said")).to_have_text("0 records due now for mixpanel.")
    assert token(here) not in page.content()


def test_everything_works_from_the_keyboard(here: Site, look: Open) -> None:
    """Tab finds each button, the focus can be seen, Enter and Escape do what they say, and the focus comes back."""
    page = look(here.run("dashboard", "--with-token").stdout.strip()).page
    expect(page.locator("#destinations li")).to_have_count(1)
    names = []
    for _ in range(6):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        if names[-1] == "Pause delivery to mixpanel":
            break
    assert names == ["replay", "Pause delivery to mixpanel"]
    page.keyboard.press("Enter")
    expect(page.locator("#dialog-cancel")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#dialog-confirm")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("paused")
    expect(page.get_by_role("button", name="Resume delivery to mixpanel")).to_be_focused()


def test_stored_records_are_replayed(here: Site, look: Open) -> None:
    """They are counted first; what is counted is sent again after a second question."""
    here.run("send", "-", text=lines(4) + lines(3, "Tock"))
    here.drained()
    page = look(here.run("dashboard", "--with-token").stdout.strip()).page
    page.locator("#replay").click()
    page.get_by_label("Event name").fill("Tock")
    confirm(page, "Replay stored records")
    expect(page.locator("#dialog-text")).to_contain_text("3 delivered, 0 refused")
    confirm(page, "Send 3 records to mixpanel again")
    expect(page.locator("#said")).to_contain_text("3 records in the log again")
    eventually(lambda: len(here.delivered()) == 10, "the copies are delivered")
    page.locator("#replay").click()
    page.get_by_label("Event name").fill("Nothing")
    confirm(page, "Replay stored records")
    expect(page.locator("#said")).to_contain_text("No records match")


def test_dead_letters_are_shown_sent_again_and_given_up(tmp_path: Path, look: Open) -> None:
    """In groups, without values; giving up needs the number typed."""
    script = refusing(
        tmp_path / "script.json", "properties.plan: is unknown", "properties.plan: is unknown", "event: <b>no</b>"
    )
    with site(tmp_path) as here:
        here.sink("--script", str(script))
        here.serve()
        page = look(here.run("dashboard", "--with-token").stdout.strip()).page
        expect(page.locator("#dead-none")).to_be_visible()
        here.run("send", "-", text=lines(3))
        letters = page.locator("#dead > li")
        expect(letters).to_have_count(2)
        known = letters.filter(has_text="is unknown")
        expect(known.locator(".count")).to_have_text("2")
        expect(letters.filter(has_text="<b>no</b>")).to_have_count(1)
        known.locator("summary").click()
        expect(known.locator("dl.outline dl.outline")).to_contain_text("plan")
        assert CANARY not in page.content()
        known.get_by_role("button", name="Send again").click()
        confirm(page, "Send 2 letters to mixpanel again")
        expect(page.locator("#said")).to_contain_text("2 letters in the log again")
        expect(letters).to_have_count(1)
        letters.get_by_role("button", name="Discard").click()
        page.get_by_label("Type 1 to go ahead").fill("2")
        page.locator("#dialog-confirm").click()
        expect(page.locator("#dialog")).to_be_visible()
        page.get_by_label("Type 1 to go ahead").fill("1")
        confirm(page, "Give up 1 letter")
        expect(page.locator("#dead-none")).to_be_visible()
        numbers = here.drained()
    assert (numbers["dead"], numbers["resolved"], numbers["sent"]) == (0, 3, 2)


def test_it_comes_back_with_the_server(here: Site, url: str, look: Open) -> None:
    """While nobody answers the page says so; then it is live again, without what the last server remembered."""
    here.run("send", "-", text=lines(3))
    here.drained()
    person = look(url)
    page = person.page
    expect(page.locator("#batches tr")).to_have_count(1)
    here._running[-1].stop()
    expect(page.locator("#connection")).to_contain_text("no answer since")
    here.serve()
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.locator("#batches-none")).to_be_visible()
    expect(page.locator("#destinations li")).to_contain_text("3 sent")
    person.trouble.clear()  # a browser tells of each connection that is refused


def test_a_hidden_tab_lets_go_of_the_stream(here: Site, url: str, look: Open) -> None:
    """Nobody looks, so nothing is sent; when somebody looks again it is current at once."""
    page = look(url).page
    sent = page.locator("#destinations li")
    expect(sent).to_contain_text("0 sent")
    page.evaluate(HIDDEN, True)
    here.run("send", "-", text=lines(3))
    here.drained()
    expect(sent).to_contain_text("0 sent")
    page.evaluate(HIDDEN, False)
    expect(sent).to_contain_text("3 sent")


HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_on_a_phone_and_can_be_read(tmp_path: Path, look: Open, *, dark: bool) -> None:
    """At 360 pixels nothing has to be scrolled sideways, and every text has enough contrast, by day and by night."""
    script = refusing(tmp_path / "script.json", f"properties.{'long' * 30}: {'is not a word ' * 12}")
    with site(tmp_path, destination="mixpanel") as here:
        here.sink("--script", str(script))
        here.serve()
        here.run("send", "-", text=lines(3))
        page = look(here.run("dashboard", "--with-token").stdout.strip(), size=NARROW, dark=dark).page
        expect(page.locator("#dead > li")).to_have_count(1)
        expect(page.locator("#batches tr")).not_to_have_count(0)
        page.locator("#dead summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0]
        assert page.evaluate(CONTRASTS) == []
        page.get_by_role("button", name="Discard").click()
        box = page.locator("#dialog").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= NARROW[0]
        assert page.evaluate(CONTRASTS) == []


def test_it_is_dark_where_the_person_wants_it_dark(here: Site, url: str, look: Open) -> None:
    """The page follows the system."""
    light, dark = (
        look(url, dark=wanted).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for wanted in (False, True)
    )
    assert sum(map(int, re.findall(r"\d+", light))) > 600
    assert sum(map(int, re.findall(r"\d+", dark))) < 150


def test_it_can_be_read_without_javascript(here: Site, url: str, look: Open) -> None:
    """The sentence and the numbers are there; what would not work is not."""
    here.run("send", "-", text=lines(3))
    here.drained()
    page = look(url, script=False).page
    expect(page.locator(".sentence")).to_have_text("Delivering. Nothing is pending.")
    expect(page.locator("[data-shown=pending]")).to_have_text("0")
    expect(page.locator("noscript code").first).to_have_text("walbatch stats")
    expect(page.locator("#replay")).to_be_hidden()


def test_a_destination_that_fails_is_told(tmp_path: Path, look: Open) -> None:
    """The sentence, the word and the batches say what it answers; nothing is lost."""
    with site(tmp_path, retry_base="50ms", retry_max="100ms", retry_attempts=2) as here:
        here.sink("--fail-rate", "1", "--status", "503")
        here.serve()
        page = look(here.run("dashboard").stdout.strip()).page
        here.run("send", "-", text=lines(3))
        expect(page.locator(".sentence")).to_contain_text("mixpanel answers 503")
        expect(page.locator("#state")).to_have_text("not answering")
        expect(page.locator("#batches tr").first).to_contain_text("503 Service Unavailable · all to be sent again")
        expect(page.locator("#destinations li")).to_contain_text("failing since")


def test_without_the_browser_it_is_said_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is skipped: a page that nobody looked at is not tested."""
    monkeypatch.setattr(browsing, "CHROMIUM", Path("/nowhere/chromium"))
    with pytest.raises(AssertionError, match=r"tests/browser/tools\.sh"), browsing.chromium():
        pass


CONTRASTS = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => sum + share * linear(c[i] / 255), 0);
  const behind = (one) => {
    for (let e = one; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
    if (!own || !one.checkVisibility() || one.closest("noscript, svg, [disabled]")) continue;
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) found.push([one.tagName, one.className, one.textContent.slice(0, 30), contrast]);
  }
  return found;
}"""
"""Texts whose contrast with what is behind them is below 4.5 (https://www.w3.org/TR/WCAG22/#contrast-minimum)."""
