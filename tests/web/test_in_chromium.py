"""The page in a real browser, at the widths of a telephone and a desk, light and dark."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from indexer.store.pool import Database
from indexer.web.health import ChainHealth, Health
from tests.fixtures_database import Connection
from tests.schema_rows import text
from tests.web import story
from tests.web.chromium import Tab, chromium
from tests.web.serving import serving

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

PAGES = {
    "front": "/",
    "account": f"/?account={text(story.ALICE)}",
    "drifts": "/?severity=critical",
    "mistake": "/?account=0x12",
    "unknown": "/?account=" + text(story.TOKEN),
}

# Of everything that carries text: the contrast of its colour with the colour behind it (WCAG 2).
_LOW_CONTRAST = """(() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92
    : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${e.outerHTML.slice(0, 80)} ${ratio.toFixed(2)}`);
  }
  return found;
})()"""

_TOO_WIDE = """[...document.querySelectorAll('body *')]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.outerHTML.slice(0, 80))"""

_SMALL_TARGETS = """[...document.querySelectorAll('main a, button, input, select, summary')]
  .filter(e => e.getBoundingClientRect().height < 24)
  .map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture
async def port(connection: Connection, database_url: str) -> AsyncIterator[int]:
    """The story behind the server, one chain of which is not ready."""
    await story.fill(connection)
    chain = ChainHealth(last_step_monotonic=time.monotonic(), lag_seconds=500.0)
    health = Health(started_monotonic=time.monotonic(), chains={"mumbai": chain})
    async with Database.open(database_url) as database, serving(health, database=database) as port:
        yield port


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with chromium(tmp_path) as opened:
        yield opened


async def test_every_page_fits_and_can_be_read(port: int, tab: Tab) -> None:
    """Nothing is wider than the screen, nothing faint, nothing too small to be tapped."""
    for name, path in PAGES.items():
        for width in (390, 1280):
            for dark in (False, True):
                await tab.open(f"http://127.0.0.1:{port}{path}", width=width, dark=dark)
                where = f"{name} at {width}, {'dark' if dark else 'light'}"
                size = await tab.value("[document.documentElement.scrollWidth, innerWidth]")
                assert size == [width, width], where
                assert await tab.value(_TOO_WIDE) == [] or width > 390, where
                assert await tab.value(_LOW_CONTRAST) == [], where
                assert await tab.value(_SMALL_TARGETS) == [], where
                back = await tab.value("getComputedStyle(document.body).backgroundColor")
                assert back == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)"), where


async def test_the_policy_stops_nothing_of_the_page_and_everything_else(
    port: int, tab: Tab
) -> None:
    """The style applies, no violation is reported, and a script put in does not run."""
    await tab.open(f"http://127.0.0.1:{port}/", width=1280, dark=False)
    assert tab.said == []
    assert (
        await tab.value("getComputedStyle(document.querySelector('.panel')).borderRadius") == "8px"
    )
    await tab.value(
        "{ const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.head.append(s); }"
    )
    assert await tab.value("window.ran ?? 'not run'") == "not run"


async def test_a_root_is_selected_in_full_though_its_ends_are_seen(port: int, tab: Tab) -> None:
    """What one click selects is all 66 characters."""
    await tab.open(f"http://127.0.0.1:{port}{PAGES['account']}", width=390, dark=False)
    selected = await tab.value(
        "(() => { const code = document.querySelector('td .hash');"
        " getSelection().selectAllChildren(code); return getSelection().toString(); })()"
    )
    assert selected == text(story.root(story.ROOTS))
    head = await tab.value(
        "(() => { const e = document.querySelector('td .hash span');"
        " return e.scrollWidth > e.clientWidth; })()"
    )
    assert head is True


async def test_the_search_does_not_even_send_a_private_key(port: int, tab: Tab) -> None:
    """The field accepts what is an account in any usual way, and no more digits."""
    await tab.open(f"http://127.0.0.1:{port}/", width=390, dark=False)
    account = text(story.ALICE)
    for typed, is_valid in (
        (account, True),
        (f" {account} ", True),
        (f"{account[:12]} {account[12:]}", True),
        (account.upper(), True),
        ("0x" + "4c" * 32, False),
        ("4c" * 32, False),
        ("", False),
    ):
        assert (
            await tab.value(
                f"(() => {{ const e = document.querySelector('#account'); e.value = '{typed}';"
                " return e.checkValidity(); })()"
            )
            is is_valid
        ), typed
