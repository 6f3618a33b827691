"""The style sheet of the report: system fonts, light and dark, phone and paper."""

STYLE = """
:root {
  color-scheme: light dark; --paper: #ffffff; --ink: #1a2027; --muted: #5a6672; --line: #dfe4e8;
  --panel: #f5f7f8; --model: #0a6f74; --second: #b4530a; --third: #6b4fa3; --control: #7b8691;
  --band: rgba(10, 111, 116, .16);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12171c; --ink: #e4e9ed; --muted: #98a4af; --line: #2b343c; --panel: #1a2127;
    --model: #4fc4c4; --second: #f0a35e; --third: #b9a2ea; --control: #8b97a2;
    --band: rgba(79, 196, 196, .18);
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 2.5rem) 3rem; max-width: 68rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
    sans-serif;
}
h1 {
  font-size: clamp(1.6rem, 4.5vw, 2.3rem); line-height: 1.15; letter-spacing: -.02em;
  margin: 0 0 .4rem; font-weight: 650; text-wrap: balance;
}
h2 {
  font-size: 1.3rem; line-height: 1.25; letter-spacing: -.01em; margin: 0 0 .5rem;
  font-weight: 650;
}
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; font-weight: 650; }
p { margin: 0 0 .8rem; max-width: 44rem; }
a { color: var(--model); text-underline-offset: .15em; }
code, pre {
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  font-size: .86em;
}
.brand { color: var(--model); font-weight: 650; letter-spacing: .02em; margin: 0 0 .6rem; }
.subtitle, .summary { color: var(--muted); }
.subtitle { font-size: 1.05rem; }
.muted, .bounds { color: var(--muted); }
.bounds { font-size: .86em; white-space: nowrap; }
.numbers {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 0;
  margin: 1.8rem 0 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden;
}
.numbers > div {
  padding: .9rem 1.1rem 1rem; margin: 0 -1px -1px 0; border-right: 1px solid var(--line);
  border-bottom: 1px solid var(--line);
}
.numbers dt { color: var(--muted); font-size: .84rem; }
.numbers dd {
  margin: 0; font-size: 1.75rem; font-weight: 600; line-height: 1.3; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums;
}
.numbers dd.note {
  font-size: .84rem; font-weight: 400; letter-spacing: 0; color: var(--muted); line-height: 1.4;
}
nav { margin: 1.4rem 0 0; font-size: .92rem; }
nav ol {
  list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 0; padding: 0;
}
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
section { margin-top: 2.2rem; padding-top: 1.8rem; border-top: 1px solid var(--line); }
.scroll { overflow-x: auto; margin: 0 0 1rem; }
table {
  border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums;
}
th, td {
  text-align: left; vertical-align: top; padding: .42rem 1.1rem .42rem 0;
  border-bottom: 1px solid var(--line);
}
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-weight: 500; font-size: .84rem; vertical-align: bottom; }
tbody th { font-weight: 500; }
tr.total > * { font-weight: 650; }
.number { text-align: right; white-space: nowrap; }
.grid {
  display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr));
}
.grid.wide {
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.6rem;
}
.grid.slices {
  grid-template-columns: repeat(auto-fill, minmax(min(45%, 9.5rem), 1fr)); gap: .8rem;
}
.grid.planes {
  grid-template-columns: repeat(3, 1fr); gap: .4rem; align-items: center; background: #000;
  border-radius: 6px; padding: .4rem;
}
.grid.cards {
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); gap: 1.4rem;
}
figure { margin: 0; min-width: 0; break-inside: avoid; }
figcaption {
  font-size: .84rem; color: var(--muted); margin-top: .4rem; line-height: 1.4;
  overflow-wrap: anywhere;
}
figcaption.above { margin: 0 0 .5rem; }
figcaption b { color: var(--ink); font-weight: 600; }
img {
  display: block; width: 100%; height: auto; object-fit: fill; background: #000;
  border-radius: 4px;
}
.planes img { border-radius: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 10.5px; font-family: inherit; }
svg .label { font-size: 11px; }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .gridline, svg .rail { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--muted); stroke-width: 1; }
svg .reference { stroke: var(--control); stroke-width: 1; stroke-dasharray: 3 3; fill: none; }
svg .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
svg .band { fill: var(--band); }
svg .whisker { stroke: var(--model); stroke-width: 2.5; stroke-linecap: round; opacity: .55; }
svg .ring { fill: var(--paper); stroke: var(--control); stroke-width: 1.6; }
svg .curve.model { stroke: var(--model); }
svg .dot.model { fill: var(--model); }
svg .curve.second { stroke: var(--second); }
svg .dot.second { fill: var(--second); }
svg .curve.third { stroke: var(--third); }
svg .dot.third { fill: var(--third); }
svg .curve.control { stroke: var(--control); }
svg .dot.control { fill: var(--control); }
.forest { width: 11rem; margin: .1rem 0; }
.legend {
  display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .84rem; color: var(--muted);
  margin: .3rem 0 0 2.6rem;
}
.legend span { display: inline-flex; align-items: center; gap: .4rem; }
.swatch { width: 1.1rem; height: 3px; border-radius: 2px; background: var(--model); }
.swatch.second { background: var(--second); }
.swatch.third { background: var(--third); }
.swatch.control { background: var(--control); }
.key { font-size: .84rem; color: var(--muted); }
pre {
  white-space: pre-wrap; overflow-wrap: anywhere; background: var(--panel);
  border: 1px solid var(--line); border-radius: 8px; overflow-x: auto; padding: .9rem 1.1rem;
  margin: 0 0 1rem; line-height: 1.6;
}
details { margin: .4rem 0 1rem; }
summary { cursor: pointer; color: var(--model); }
.report {
  white-space: pre-wrap; background: var(--panel); border-radius: 6px; padding: .8rem 1rem;
  font-size: .9rem; max-width: 44rem;
}
.scale {
  display: inline-block; width: 6rem; height: .6rem; border-radius: 2px; vertical-align: middle;
  margin: 0 .4rem;
}
footer {
  margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--muted);
  font-size: .84rem;
}
@media print {
  :root {
    color-scheme: light; --paper: #fff; --ink: #000; --muted: #444; --line: #ccc;
    --panel: #f6f6f6; --model: #0a6f74; --second: #b4530a; --third: #6b4fa3; --control: #666;
    --band: rgba(10, 111, 116, .16);
  }
  body { font-size: 10.5pt; max-width: none; padding: 0; }
  nav { display: none; }
  h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; }
  section { margin-top: 1.2rem; padding-top: 1rem; }
  .scroll, pre { overflow: visible; }
  img, .band, .swatch { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
@page { margin: 16mm 14mm; }
"""
