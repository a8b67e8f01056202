"""How the page looks: one style sheet, and the policy that allows it and nothing else. Pure."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --quiet: #57606a; --line: #d0d7de;
  --back: #ffffff; --panel: #f6f8fa; --link: #0550ae; --bad: #b3261e; --warn: #7d4e00;
  --good: #1a6b32; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --quiet: #9aa4af;
  --line: #3d444d; --back: #0d1117; --panel: #161b22; --link: #79c0ff; --bad: #ff8a80;
  --warn: #e3b341; --good: #56d364; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem clamp(1rem, 4vw, 2rem) 4rem; max-width: 76rem;
  color: var(--text); background: var(--back); font: 1rem/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1, h2, h3, p, ul, ol, dl, dd { margin: 0; padding: 0; }
ul, ol { list-style: none; }
h1 { font-size: 1.5rem; line-height: 1.25; margin-bottom: .5rem; }
h2 { font-size: 1.25rem; }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
p { margin: .25rem 0; }
a { color: var(--link); text-underline-offset: .15em; }
a:focus-visible, button:focus-visible, input:focus-visible, select:focus-visible,
summary:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--link);
  outline-offset: 2px; border-radius: .25rem; }
code { font: .8125rem/1.5 ui-monospace, SFMono-Regular, Menlo, monospace; }
.quiet { color: var(--quiet); }
.bad { color: var(--bad); }
.warn { color: var(--warn); }
.good { color: var(--good); }
strong, .bad, .warn, .good { font-weight: 600; }
.badge { display: inline-block; padding: 0 .6rem; border: 1px solid currentColor;
  border-radius: 1rem; font-size: .875rem; font-weight: 600; white-space: nowrap; }
.top { display: flex; flex-wrap: wrap; gap: .75rem 1.5rem; align-items: center;
  justify-content: space-between; padding-bottom: 1rem; margin-bottom: 1.25rem;
  border-bottom: 1px solid var(--line); }
.brand { font-weight: 700; font-size: 1.125rem; color: inherit; text-decoration: none;
  padding: .6rem 0; }
form { display: flex; flex-wrap: wrap; gap: .5rem; flex: 1 1 20rem; max-width: 46rem; }
form label { flex: 1 1 100%; font-size: .875rem; color: var(--quiet); }
input, select, button { font: inherit; min-height: 2.75rem; padding: 0 .75rem;
  border: 1px solid var(--quiet); border-radius: .375rem; color: inherit;
  background: var(--back); }
input { flex: 1 1 12rem; min-width: 0; font-family: ui-monospace, Menlo, monospace; }
::placeholder { color: var(--quiet); opacity: 1; }
button { font-weight: 600; cursor: pointer; }
.panel { margin-top: 1.25rem; padding: 1rem clamp(.75rem, 2vw, 1.5rem) 1.25rem;
  border: 1px solid var(--line); border-radius: .5rem; background: var(--panel); }
.alarm { border-left: .375rem solid var(--bad); }
.caution { border-left: .375rem solid var(--warn); }
.calm { border-left: .375rem solid var(--good); }
.chips { display: flex; flex-wrap: wrap; gap: .5rem; margin: .5rem 0; }
.chips a { display: inline-block; padding: .45rem .8rem; min-height: 2.5rem;
  border: 1px solid var(--line); border-radius: 1.25rem; background: var(--back);
  text-decoration: none; }
.chips a[aria-current] { border-color: var(--link); box-shadow: inset 0 0 0 1px var(--link);
  font-weight: 600; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr));
  gap: .75rem 1.5rem; margin-top: .75rem; }
.facts dt, .told dt { color: var(--quiet); font-size: .875rem; }
.facts dd { font-size: 1.125rem; font-variant-numeric: tabular-nums; }
.told > div { display: grid; grid-template-columns: 9rem 1fr; gap: 0 1rem; padding: .35rem 0;
  align-items: baseline; }
.bars li { display: grid; grid-template-columns: 13rem minmax(4rem, 14rem) 1fr;
  gap: 0 1rem; align-items: center; padding: .3rem 0; }
progress, meter { width: 100%; height: .875rem; accent-color: var(--good); }
.drifts li { margin-top: .75rem; padding: .5rem .75rem .6rem; border: 1px solid var(--line);
  border-left-width: .375rem; border-radius: .375rem; background: var(--back); }
.drifts .critical { border-left-color: var(--bad); }
.drifts .warning { border-left-color: var(--warn); }
.drifts a { display: inline-block; padding: .35rem 0; }
.drifts p { max-width: 75ch; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: var(--back); }
table.narrow { width: auto; min-width: min(100%, 34rem); }
caption { text-align: left; color: var(--quiet); padding-bottom: .35rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem;
  border: 1px solid var(--line); border-width: 1px 0; unicode-bidi: isolate; }
th { font-weight: 400; }
thead th { color: var(--quiet); font-size: .875rem; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tight { white-space: nowrap; }
td a, dd a { display: inline-block; padding: .1rem 0; }
/* One click selects all of it, though only the ends are seen. */
.hash { white-space: nowrap; user-select: all; -webkit-user-select: all; }
.hash span { display: inline-block; max-width: 9.2ch; overflow: hidden; overflow: clip;
  text-overflow: ellipsis; }
.whole { user-select: all; -webkit-user-select: all; }
details { margin-top: .75rem; padding: 0 .75rem; border: 1px solid var(--line);
  border-radius: .375rem; background: var(--back); }
details[open] { padding-bottom: .75rem; }
details:target { outline: 2px solid var(--link); }
summary { padding: .6rem 0; cursor: pointer; }
footer { margin-top: 2.5rem; }
footer a, main > p > a { display: inline-block; padding: .5rem 0; }
@media (max-width: 44rem) {
  body { padding-inline: .75rem; }
  .drifts code, .whole { font-size: .75rem; }
  form:has(select) input { flex-basis: 100%; }
  .told > div { grid-template-columns: 1fr; }
  .bars li { grid-template-columns: 1fr 8rem; padding: .5rem 0; }
  .bars .words { grid-column: 1 / -1; grid-row: 2; }
  .chips a { min-height: 2.75rem; padding-block: .55rem; }
  table.cards, .cards caption, .cards tbody, .cards tr, .cards td, .cards th { display: block; }
  .cards thead { position: absolute; clip-path: inset(50%); height: 1px; width: 1px;
    overflow: hidden; white-space: nowrap; }
  table.cards { background: none; }
  .narrow th, .narrow td { padding-inline: .35rem; }
  .cards tr { padding: .5rem .75rem; margin-bottom: .5rem; background: var(--back);
    border: 1px solid var(--line); border-radius: .375rem; }
  .cards td, .cards th { display: grid; grid-template-columns: 7.5rem 1fr; gap: .75rem;
    padding: .15rem 0; border: 0; text-align: left; white-space: normal; }
  .cards td::before, .cards tbody th::before { content: attr(data-label);
    color: var(--quiet); font-size: .875rem; }
  .hash span { max-width: 15.2ch; }
}
"""

# The page may show its own style and nothing else: text that slipped through could not run.
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
