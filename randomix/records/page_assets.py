"""Style and script of the page: no fonts, images or code from elsewhere."""

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --paper: #fff; --panel: #f6f8fa;
  --link: #0b5cad; --good: #116329; --bad: #a40e26; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4af; --line: #3a424b; --paper: #0f1419;
  --panel: #171d24; --link: #6cb6ff; --good: #57ca74; --bad: #ff8f88; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Liberation Sans", sans-serif; }
main, header, footer { max-width: 84rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; }
h2, h3 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; overflow-wrap: anywhere; }
h2.group { font-size: 1.5rem; margin-top: 3.5rem; padding-bottom: .3rem; border-bottom: 2px solid var(--line); }
nav h2 { font-size: 1rem; margin: 1rem 0 .25rem; }
nav ul { margin: .25rem 0; padding-left: 1.25rem; }
nav li { overflow-wrap: anywhere; }
.skip { position: absolute; left: -100vw; }
.skip:focus { left: .5rem; top: .5rem; z-index: 2; padding: .5rem .75rem; background: var(--paper); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
p { margin: .5rem 0; max-width: 48rem; }
a { color: var(--link); }
code, pre { font-family: ui-monospace, "Liberation Mono", monospace; font-size: .9em; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  padding: .75rem 1rem; overflow-x: auto; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px;
  background: linear-gradient(to left, var(--paper) 30%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--line), transparent) right / 1rem 100% no-repeat scroll; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums; }
.what { font-size: .9rem; max-width: 60rem; }
th, td { padding: .5rem .75rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; padding: 0; vertical-align: bottom; }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--paper); }
thead tr:first-child th:first-child { position: sticky; left: 0; z-index: 1; background: var(--paper); }
th.group { padding: .5rem .75rem .1rem; font-size: .9rem; white-space: nowrap; }
th.first, td.first, th.group { border-left: 1px solid var(--line); }
thead tr + tr th { border-top: 0; }
.paper th, .paper td, .paper thead button { padding: .4rem .5rem; font-size: .9rem; white-space: nowrap; }
.paper thead th[aria-sort] { padding: 0; }
.paper details p, .paper details code { white-space: normal; }
tr.part th { font-weight: 400; font-size: .85rem; color: var(--soft); background: var(--panel); }
tr.part span { position: sticky; left: .75rem; }
sup { margin-left: .15em; line-height: 0; }
td details code { display: block; margin: .3rem 0 0; width: 18rem; max-width: 70vw; font-size: .8rem;
  overflow-wrap: anywhere; }
thead button { all: unset; box-sizing: border-box; display: block; width: 100%; height: 100%; padding: .5rem .75rem;
  font-weight: 600; font-size: .9rem; cursor: pointer; }
thead button:focus-visible, summary:focus-visible, a:focus-visible, .scroll:focus-visible {
  outline: 2px solid var(--link); outline-offset: -2px; }
thead button::after { content: "\\a0\\2195"; color: var(--soft); }
th[aria-sort=ascending] button::after { content: "\\a0\\2191"; color: var(--ink); }
th[aria-sort=descending] button::after { content: "\\a0\\2193"; color: var(--ink); }
summary { cursor: pointer; list-style: none; white-space: nowrap; }
summary::-webkit-details-marker { display: none; }
summary:hover span, summary:hover b { text-decoration: underline dotted; text-underline-offset: 3px; }
td details ul { list-style: none; margin: .4rem 0 0; padding: 0; font-size: .85rem; white-space: nowrap; }
td details p { margin: .3rem 0 0; min-width: 10rem; font-size: .8rem; color: var(--soft); max-width: 15rem; }
small { font-size: .85em; }
.spread, .empty, .same { color: var(--soft); }
.good { color: var(--good); }
.bad { color: var(--bad); }
.notes { margin: .75rem 0; padding-left: 1.1rem; color: var(--soft); font-size: .85rem; max-width: 60rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem;
  margin: 1rem 0; }
.figures.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: .75rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 36rem; margin: 0 auto; }
figure svg text { font-family: system-ui, "Liberation Sans", sans-serif !important; }
.sheet { background: #fff; color: #1f2328; overflow-x: auto; }
.sheet img { display: block; max-width: 100%; min-width: 40rem; height: auto; margin: 0 auto; }
figcaption { font-size: .85rem; color: var(--soft); margin-top: .5rem; }
.sheet figcaption { color: #59636e; }
.records td, .records tbody th { font-size: .85rem; white-space: nowrap; }
.records tbody th { font-weight: 400; }
footer { color: var(--soft); font-size: .85rem; margin-top: 3rem; padding-bottom: 3rem; }
@media (max-width: 40rem) {
  main, header, footer { padding-left: .75rem; padding-right: .75rem; }
  h1 { font-size: 1.45rem; }
  th, td, thead button { padding: .4rem .45rem; font-size: .85rem; }
  thead button, .paper thead button { font-size: .75rem; line-height: 1.3; }
  .paper tbody th { white-space: normal; max-width: 8rem; }
  .paper tr.part th { max-width: none; }
  td small { display: block; }
  tbody th { max-width: 7rem; overflow-wrap: break-word; }
  .records tbody th { max-width: none; position: static; }
  figure { padding: .4rem; }
}
@media print { .scroll { overflow: visible; } thead button::after { content: ""; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.querySelectorAll('th[aria-sort]')];  // below spanning heads the order is the same
  const bodies = [...table.tBodies].map(body => [body, [...body.rows].filter(row => row.className !== 'part')]);
  const key = (row, i) => {
    const cell = row.cells[i], value = cell.dataset.value;
    return value === undefined ? cell.textContent.trim() : Number(value);
  };
  const compare = (a, b) => typeof a === 'number' && typeof b === 'number' ? a - b
    : typeof a === 'number' ? -1 : typeof b === 'number' ? 1 : a.localeCompare(b, undefined, {numeric: true});
  heads.forEach((head, i) => head.querySelector('button').addEventListener('click', () => {
    const next = {none: 'ascending', ascending: 'descending', descending: 'none'}[head.getAttribute('aria-sort')];
    heads.forEach(h => h.setAttribute('aria-sort', 'none'));
    head.setAttribute('aria-sort', next);
    const empty = row => row.cells[i].classList.contains('empty') ? 1 : 0, sign = next === 'descending' ? -1 : 1;
    for (const [body, original] of bodies) body.append(...(next === 'none' ? original : [...original].sort(
      (a, b) => empty(a) - empty(b) || sign * compare(key(a, i), key(b, i)))));
  }));
}
"""
