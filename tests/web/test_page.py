"""The status page: readable, self-contained, and deaf to hostile text."""

import base64
import hashlib
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from indexer.web.page import render_page
from indexer.web.style import CONTENT_SECURITY_POLICY

ACCOUNT = "0xcbeba65449cbef0dcfd4a63cdf4090fa1d4a9f63"
VOID = {"meta", "br", "input"}


def a_status(text: str) -> dict:
    """A status in which every text that could come from outside is `text`."""
    return {
        "chains": [
            {
                "chain_id": 80001,
                "chain": text,
                "progress": {
                    "latest_block": 120,
                    "indexed_block": 119,
                    "finalized_block": None,
                    "lag_blocks": 1,
                    "lag_seconds": 2.5,
                    "updated_seconds_ago": 10_300.0,
                    "finished": False,
                },
                "lanes": [
                    {
                        "lane": "logs",
                        "pass": "logs",
                        "filter": text,
                        "first_block": 0,
                        "last_block": 120,
                        "missing_blocks": 40,
                        "unreadable_blocks": 8,
                        "percent": 66.7,
                        "accounts": 2,
                        "remaining_seconds": None,
                        "remaining_requests": None,
                        "basis": text,
                    }
                ],
                "remaining": {"seconds": None, "requests": None, "basis": text},
                "verdicts": {"in_sync": 3, "drifted": 1, text + "x": 0},
                "drifted_by_cause": {text: 1},
                "drifted_by_severity": {text: 1},
                "audit_findings_last_day": 2,
                "coverage_missing_blocks": {text: 40},
                "finality_violation": text + "y",
                "last_reorg": None,
                "reorgs": [
                    {
                        "detected_at": "2026-01-02T03:04:05.678901+00:00",
                        "depth": 2,
                        "common_ancestor": 117,
                        "reason": text,
                    }
                ],
                "newest_drifts": [
                    {
                        "account": text,
                        "cause": text,
                        "severity": text,
                        "since_time": text,
                        "since_block": 118,
                        "explanation": text,
                        "is_final": False,
                    }
                ],
            }
        ]
    }


class _Outline(HTMLParser):
    """What a browser would build: tags with their attributes, and whether they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple] = []
        self.open: list[str] = []
        self.seen = ""

    def handle_starttag(self, tag, attrs):
        names = tuple(name for name, _ in attrs)
        self.tags.append((tag, names))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.seen += data


def outline(page: str) -> _Outline:
    parser = _Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def render(text: str) -> str:
    reasons = {text: (text,), "": (text,)}
    return render_page(
        a_status(text), reasons, uptime_seconds=90_061.0, version=text, problem=text + "z"
    )


@given(st.text(min_size=1))
def test_no_text_can_become_markup(text: str):
    """Whatever stands in a name, a cause or an explanation, the page keeps its elements."""
    assert outline(render(text)).tags == outline(render("plain")).tags


def test_hostile_text_is_shown_as_text():
    """An explanation that tries to be a script is shown letter by letter."""
    hostile = "</td><script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;"
    page = render(hostile)
    assert "<script" not in page
    assert "<img" not in page
    assert hostile in outline(page).seen


def test_the_policy_allows_the_page_its_own_style_and_nothing_else():
    """The style's hash in the policy is that of the page's; the form leads to us alone."""
    page = render("plain")
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "form-action 'self'" in CONTENT_SECURITY_POLICY
    assert "style=" not in page
    assert "://" not in page
    assert "<script" not in page


def test_the_page_names_its_tables_and_their_heads():
    """Each table has a caption and scoped heads, and the document a language and a title."""
    page = render_page(a_status("plain"), {}, uptime_seconds=0.0, version="0.1.0")
    assert page.count("<caption>") == page.count("<table ") == 2
    assert page.count("<th ") == page.count("<th scope=")
    assert "<html lang=en>" in page
    assert "<title>Sessionwatch: ready, 1 account drifted</title>" in page
    assert "<dt>Finalized</dt><dd>unknown</dd>" in page
    assert ">2026-01-02 03:04:05 UTC</time>" in page
    assert "since block 118, plain, not final<" in page
    assert page.count("<h1>") == 1


def test_the_page_shows_a_bar_per_lane():
    """How much is done, what is left, what is not readable, and that nobody seems to pay it."""
    page = render_page(a_status("plain"), {}, uptime_seconds=0.0, version="0.1.0")
    assert "<progress max=100 value=66.7 aria-label='logs plain'></progress>" in page
    assert "66 %, 32 blocks left; no estimate: plain; with the past of 2 accounts" in page
    assert "not readable: 8 blocks, needs an archive node" in page
    assert "<p>The past: no estimate: plain; no daemon has written for 3 h.</p>" in page


def test_lag_is_a_bar_of_what_is_allowed():
    """The bar is full at the limit of readiness, and beyond it the words are marked."""
    status = a_status("plain")
    told = {"uptime_seconds": 0.0, "version": "0.1.0", "max_lag_seconds": {"plain": 120.0}}
    page = render_page(status, {}, **told)
    assert "<meter min=0 max=120 low=60 high=119.88 optimum=0 value=2.5 aria-label=lag>" in page
    assert "<span class='words'>2.5 s behind, 1 block; ready up to 120 s</span>" in page
    status["chains"][0]["progress"]["lag_seconds"] = 121.0
    assert "<span class='words bad'>121 s behind" in render_page(status, {}, **told)
    status["chains"][0]["progress"] |= {"finished": True}
    finished = render_page(status, {}, **told)
    assert "<meter" not in finished
    assert "Finished: the chain's configured last block is indexed and final." in finished


def test_a_chain_that_was_never_followed_has_no_lag():
    """The database says 0 where nothing is known."""
    status = a_status("plain")
    chain = status["chains"][0]
    chain["progress"] |= {"indexed_block": None, "lag_seconds": 0.0, "lag_blocks": 0}
    chain["lanes"] = []
    page = render_page(status, {}, uptime_seconds=0.0, version="0.1.0")
    assert "<h3>Lag and coverage</h3><p>Not followed yet.</p>" in page
    assert "behind" not in page


def test_what_is_wrong_stands_first():
    """Reasons, violations, findings of audits and drifts by severity, before any chain."""
    status = a_status("mumbai")
    status["chains"][0]["drifted_by_severity"] = {"critical": 1}
    page = render_page(
        status, {"mumbai": ("121 seconds behind",)}, uptime_seconds=0.0, version="0.1.0"
    )
    first = page.split("<section")[0]
    assert "<div class='panel alarm'><h1>Not ready, 1 account drifted</h1>" in first
    assert "<p class=bad>mumbai: 121 seconds behind</p>" in first
    assert "<p class=bad>mumbai: Finality violation: mumbaiy</p>" in first
    assert "mumbai: no daemon has written for 3 h." in first
    assert "mumbai: 2 findings of audits within a day" in first
    assert "<a href='/?severity=critical'><span class=bad>1 critical</span></a>" in first


def test_drifted_accounts_lead_to_their_own_page():
    """By links that name account and chain, and by cause to a list."""
    page = render_page(a_status("plain"), {}, uptime_seconds=0.0, version="0.1.0")
    assert "<a href='/?account=plain&amp;chain=plain'>" in page
    assert "<a href='/?chain=plain&amp;cause=plain'>plain <strong>1</strong></a>" in page


def test_only_the_front_page_renews_itself_and_it_can_be_stopped():
    """A reader who needs time, or types, can have the page stand still."""
    page = render_page(a_status("plain"), {}, uptime_seconds=0.0, version="0.1.0")
    assert "<meta http-equiv=refresh content=15>" in page
    assert "<a href='/?renew=off'>Stop renewing</a>" in page
    still = render_page(a_status("plain"), {}, uptime_seconds=0.0, version="0.1.0", renews=False)
    assert "http-equiv=refresh" not in still
    assert "<a href='/'>Renew it</a>" in still


def test_a_page_without_a_status_still_says_what_is_known():
    """Without a database the page shows readiness and the sentence of the trouble."""
    page = render_page(
        None, {"": ("stopping",)}, uptime_seconds=59.9, version="0.1.0", problem="No status."
    )
    assert "<h1>Not ready</h1><p class=bad role=alert>No status.</p>" in page
    assert "stopping" in page
    assert "running for 59 s" in page
    assert "<table" not in page


def test_a_page_without_trouble_says_so():
    """No drift and no reorg are said in words, not by empty tables."""
    status = a_status("plain")
    chain = status["chains"][0]
    chain |= {"newest_drifts": [], "reorgs": [], "finality_violation": None}
    chain |= {"drifted_by_severity": {}, "audit_findings_last_day": 0}
    chain["verdicts"]["drifted"] = 0
    chain["progress"]["updated_seconds_ago"] = 1.0
    page = render_page(status, {}, uptime_seconds=90_061.0, version="0.1.0")
    assert "<div class='panel calm'><h1>Ready, no account has drifted</h1></div>" in page
    assert "No account has drifted." in page
    assert "No reorg has been seen." in page
    assert "running for 1 d 1 h 1 min 1 s" in page
    none = render_page({"chains": []}, {}, uptime_seconds=0.2, version="0.1.0")
    assert "No chain has been followed yet." in none
    assert "running for 0 s" in none


def test_a_choice_of_chains_is_offered_where_there_are_several():
    """One chain needs none."""
    status = a_status("mumbai")
    assert "<select" not in render_page(status, {}, uptime_seconds=0.0, version="0.1.0")
    status["chains"] += a_status("amoy")["chains"]
    page = render_page(status, {}, uptime_seconds=0.0, version="0.1.0")
    assert "<option value=''>every chain</option><option>mumbai</option><option>amoy" in page
