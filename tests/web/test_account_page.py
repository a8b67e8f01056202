"""One account's page and the list of drifts, asked of the real server over a real database."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from urllib.parse import urlencode

import aiohttp
import pytest

from indexer.store.account_page import (
    MAX_MINTS,
    MAX_PLACES,
    MAX_ROOTS,
    MAX_SESSIONS,
    MAX_SETS,
    MAX_USES,
)
from indexer.store.pool import Database
from indexer.web import bounded
from indexer.web.health import ChainHealth, Health
from tests.fixtures_database import connected, temporary_database
from tests.schema_rows import address, insert, text
from tests.web import story
from tests.web.serving import serving
from tests.web.story import ALICE, ALICE_CHECKSUM, HOSTILE, MANAGER, SECRET_DATA, WATCHED


class _Seen(HTMLParser):
    """The text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data


class Site:
    """The server, asked."""

    def __init__(self, client: aiohttp.ClientSession, port: int) -> None:
        self._client, self._port = client, port

    async def ask(self, **query: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self._port}/?{urlencode(query)}"
        async with self._client.get(url) as answer:
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            return answer.status, await answer.text()


@pytest.fixture(scope="module")
async def story_template(postgres_url: str, template_database: str) -> AsyncIterator[str]:
    """The name of a database that holds the story, to be copied by each test."""
    async with temporary_database(postgres_url, template_database) as url:
        async with connected(url) as opened:
            await story.fill(opened)
            name = await opened.fetchval("SELECT current_database()")
        yield name


@pytest.fixture
async def story_url(postgres_url: str, story_template: str) -> AsyncIterator[str]:
    async with temporary_database(postgres_url, story_template) as url:
        yield url


@pytest.fixture
async def site(story_url: str) -> AsyncIterator[Site]:
    """The story's database behind the server, which reads it as the daemon's role."""
    chain = ChainHealth(last_step_monotonic=time.monotonic(), lag_seconds=0.0)
    health = Health(started_monotonic=time.monotonic(), chains={"mumbai": chain})
    async with (
        Database.open(story_url) as database,
        serving(health, database=database) as port,
        aiohttp.ClientSession() as client,
    ):
        async with database.connection() as opened:
            assert await opened.fetchval("SELECT current_user") == "sessionwatch_writer"
        yield Site(client, port)


async def test_an_account_is_told_as_explain_tells_it(site: Site) -> None:
    """Verdict, cause, since when, why, warnings and what to do, per chain and manager."""
    status, page = await site.ask(account=ALICE_CHECKSUM)
    assert status == 200
    seen = _Seen(page).text
    for told in (
        "mumbai chain 80001",
        text(MANAGER),
        "drifted revoked_still_provable critical",
        HOSTILE,
        "expiring_soon: a session expires within a day",
        "Register a set made only of the sessions that shall work.",
        f"sessionwatch explain {text(ALICE)} --chain mumbai",
        "created in block 2, known by factory",
        text(story.root(story.ROOTS)),
    ):
        assert told in seen
    assert "<script" not in page
    assert "<img" not in page
    assert "http-equiv=refresh" not in page
    assert f"value='{text(ALICE)}'" in page
    assert page.count("<section ") == 1


async def test_every_part_is_bounded_and_says_of_how_many(site: Site) -> None:
    """Roots, sets, sessions of a set, uses and mints: the newest, and how many there are."""
    _, page = await site.ask(account=text(ALICE))
    seen = _Seen(page).text
    assert f"Changes: newest {MAX_ROOTS} of {story.ROOTS}" in seen
    # the set on chain is shown beside the newest ones
    assert f"Stored sets: newest {MAX_SETS + 1} of {story.SETS}" in seen
    assert f"Sessions: {story.SESSIONS}, the first {MAX_SESSIONS}" in seen
    assert f"signed: newest {MAX_USES} of {story.USES}" in seen
    assert f"moved: newest {MAX_MINTS} of {story.MINTS}" in seen
    assert page.count("<details ") == MAX_SETS + 1
    assert seen.count("nobody stored it") == MAX_USES // 2 + 1
    assert len(page) < 400_000


async def test_the_newest_root_stands_first_and_leads_to_its_set(site: Site) -> None:
    """Each root in full, though only its ends are seen; the stored set is an anchor away."""
    _, page = await site.ask(account=text(ALICE))
    blocks = re.findall(
        r"<tr><th scope=row data-label='Block'><span>(?:at the latest )?(\d+)<", page
    )
    assert [int(one) for one in blocks[:MAX_ROOTS]] == list(
        range(story.ROOTS, story.ROOTS - MAX_ROOTS, -1)
    )
    newest = text(story.root(story.ROOTS))
    assert f"<code class=hash><span>{newest[:-4]}</span>{newest[-4:]}</code>" in page
    (anchor,) = set(re.findall(r"href='#(set-80001-\d+)'", page))
    assert f"<details id={anchor} open>" in page


async def test_session_key_data_is_never_shown(site: Site) -> None:
    """Neither the daemon's role nor the page has a way to show it."""
    _, page = await site.ask(account=text(ALICE))
    assert text(story.SESSION_KEY)[:-4] in page
    for at in range(len(SECRET_DATA) - 8):
        assert SECRET_DATA[at : at + 8].hex() not in page


async def test_tables_have_captions_and_scopes(site: Site) -> None:
    """For people who hear the page; one first heading."""
    _, page = await site.ask(account=text(ALICE))
    assert page.count("<caption>") == page.count("<table ")
    assert page.count("<th ") == page.count("<th scope=")
    assert page.count("<h1>") == 1


async def test_a_watched_account_without_anything_says_so(site: Site) -> None:
    """It is no error to have no root."""
    status, page = await site.ask(account=text(WATCHED))
    assert status == 200
    assert "It is watched: it has no root, and nothing is stored for it." in page


async def test_an_unknown_account_is_404_with_a_sentence(site: Site) -> None:
    """Also one that is known, but not on the chain that was asked for."""
    status, page = await site.ask(account=text(address(0xFFFF)))
    assert status == 404
    assert f"Nothing is known of account {text(address(0xFFFF))}: it is not watched" in page
    status, page = await site.ask(account=text(ALICE), chain="amoy")
    assert status == 404
    assert f"Nothing is known of account {text(ALICE)} on amoy" in page
    assert "<option selected>amoy</option>" in page


async def test_a_chain_narrows_and_an_unknown_one_is_404(site: Site) -> None:
    """The name of a chain that nobody follows is not repeated."""
    assert (await site.ask(account=text(ALICE), chain="mumbai"))[0] == 200
    for query in ({"account": text(ALICE)}, {}):
        status, page = await site.ask(chain="<b>nowhere", **query)
        assert status == 404
        assert "No chain of that name has been followed." in page
        assert "nowhere" not in page


async def test_a_wrong_account_is_400_with_a_sentence(site: Site) -> None:
    """And the form to try again."""
    status, page = await site.ask(account="0x1234")
    assert status == 400
    assert "it has 4 hex digits, an account has 40" in page
    assert "<form action=/ method=get" in page
    assert (await site.ask(acount=text(ALICE)))[0] == 400


@pytest.mark.parametrize("before", ["", "0x", "0x ", " 0X"])
async def test_a_private_key_is_neither_echoed_nor_logged(
    site: Site, before: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody will paste one: the answer says so, and no piece of it is kept."""
    caplog.set_level("DEBUG")
    key = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
    status, page = await site.ask(account=before + key)
    assert status == 400
    assert "If it was a private key" in page
    out, err = capfd.readouterr()
    for at in range(len(key) - 8):
        piece = key[at : at + 8]
        assert piece not in page
        assert piece not in out + err + caplog.text


async def test_more_managers_than_are_shown_are_said(site: Site, story_url: str) -> None:
    """Anybody can import sets for any manager: the page stays short, what has drifted first."""
    async with connected(story_url) as connection:
        for number in range(MAX_PLACES + 3):
            await insert(
                connection, "sessions.session_set", manager=address(1 + number),
                account=ALICE, leaves_digest=address(number) + bytes(12),
            )  # fmt: skip
    _, page = await site.ask(account=text(ALICE))
    assert page.count("<section ") == MAX_PLACES
    assert "revoked_still_provable" in page.split("<section ")[1]
    assert "It stands in more managers than are shown" in page


async def test_drifts_are_listed_by_chain_cause_and_severity(site: Site, story_url: str) -> None:
    """With counts and links to narrow the list, each account leading to its page."""
    async with connected(story_url) as connection:
        for number in range(3):
            await insert(
                connection, "chain.verdict", block_number=9, manager=MANAGER, verdict="drifted",
                account=address(0x100 + number), cause="never_landed", severity="warning",
            )  # fmt: skip
    status, page = await site.ask(chain="mumbai")
    assert status == 200
    assert "<h1>Drifted accounts: 4</h1>" in page
    assert f"<a href='/?account={text(ALICE)}&amp;chain=mumbai'>" in page
    assert "<a href='/?chain=mumbai&amp;cause=never_landed'>never_landed <strong>3<" in page
    _, page = await site.ask(severity="warning")
    assert "<h1>Drifted accounts: 3</h1>" in page
    assert text(ALICE) not in page
    _, page = await site.ask(cause="revoked_still_provable", chain="mumbai")
    assert "<h1>Drifted accounts: 1</h1>" in page
    assert HOSTILE in _Seen(page).text
    _, page = await site.ask(cause="unknown_root")
    assert "No account has drifted in this way." in page


async def test_a_crawler_gets_503_and_is_told_when_to_come_again(site: Site) -> None:
    """Beyond so many reads a second; what was read a moment ago is still answered."""
    assert (await site.ask(account=text(ALICE)))[0] == 200
    statuses = []
    for number in range(1, 3 * bounded.MAX_PER_SECOND):
        status, page = await site.ask(account=text(address(number)))
        statuses.append(status)
        if status == 503:
            assert "too many pages are asked for at once" in page
            break
    assert statuses[-1] == 503


async def test_a_part_that_takes_too_long_is_left_out(site: Site, story_url: str) -> None:
    """The verdict is shown even when the sessions cannot be read; and all of it afterwards."""
    async with connected(story_url) as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE sessions.session IN ACCESS EXCLUSIVE MODE")
        status, page = await site.ask(account=text(ALICE))
        assert status == 200
        assert "<h3>Stored sets</h3><p class=warn>Not read: the database took too long." in page
        assert "<strong>revoked_still_provable</strong>" in page
    status, page = await site.ask(account=text(ALICE), chain="mumbai")
    assert status == 200
    assert "Not read" not in page


async def test_an_account_that_takes_too_long_is_a_sentence(site: Site, story_url: str) -> None:
    """Without a verdict there is no page, and it works again afterwards."""
    async with connected(story_url) as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE chain.verdict IN ACCESS EXCLUSIVE MODE")
        for query in ({"account": text(ALICE)}, {"chain": "mumbai"}):
            status, page = await site.ask(**query)
            assert status == 503
            assert "the database took" in page
    assert (await site.ask(account=text(ALICE)))[0] == 200
