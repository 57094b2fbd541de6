"""The style sheet of a report's page. Contrast of text is 4.5 to 1 at least, also of the badges."""

CSS = """\
:root { --ink: #1d2328; --quiet: #56616b; --rule: #d9dee2; --wash: #f5f7f8; --accent: #56616b; }
.helpful { --accent: #1b6b45; }
.harmful { --accent: #a32a1f; }
.equivalent { --accent: #0b4f8a; }
.undecided { --accent: #7a5300; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
p, ul { max-width: 44rem; }
p { margin: 0 0 .9rem; }
.verdict { border-left: .3rem solid var(--accent); padding-left: 1.25rem; margin-bottom: 1.6rem; }
.label { margin: 0 0 .6rem; color: var(--quiet); font-size: .9rem; }
.badge { display: inline-block; margin-right: .5rem; padding: .1rem .65rem; border-radius: 1rem;
  border: 1px solid var(--accent); background: var(--accent); color: #fff; font-weight: 600;
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }
h1 { max-width: 46rem; margin: 0; font-size: 1.75rem; line-height: 1.28; font-weight: 650;
  letter-spacing: -.012em; text-wrap: balance; }
.question { margin: .8rem 0 0; color: var(--quiet); }
h2 { margin: 3rem 0 .9rem; font-size: 1.2rem; line-height: 1.3; font-weight: 650; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: 0;
  margin: 1.8rem 0 0; border: solid var(--rule); border-width: 1px 0; }
.answers div { padding: 1rem 1.1rem 1rem 0; }
.answers dt { color: var(--quiet); font-size: .9rem; }
.answers dd { margin: 0; font-variant-numeric: tabular-nums; }
.answers .answer { font-size: 1.3rem; font-weight: 650; line-height: 1.4; }
.answers .detail { font-size: .875rem; line-height: 1.45; }
figure { margin: 0 0 2rem; }
figure img { display: block; width: 100%; max-width: 50rem; height: auto; }
figcaption { max-width: 44rem; margin-top: .5rem; color: var(--quiet); font-size: .875rem; }
.table { overflow-x: auto; margin: 0 0 1.6rem; }
.table:focus-visible, summary:focus-visible { outline: 2px solid #0b4f8a; outline-offset: 2px; }
table { min-width: min(100%, 34rem); border-collapse: collapse; font-size: .9rem; line-height: 1.45;
  font-variant-numeric: tabular-nums; }
caption { padding: 0 0 .5rem; color: var(--quiet); text-align: left; font-size: .875rem; }
th, td { padding: .5rem 1rem .5rem 0; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
thead th { border-bottom: 1px solid var(--ink); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; }
.number { text-align: right; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono",
  monospace; font-size: .84rem; }
.prose { min-width: 17rem; }
.note { display: block; margin-top: .25rem; color: var(--quiet); font-style: italic; }
td code, th code { font-weight: 400; overflow-wrap: anywhere; }
pre { margin: 0 0 1.6rem; padding: .8rem 1rem; background: var(--wash); border-radius: .3rem;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5; }
details { margin: 0 0 1.6rem; }
summary { cursor: pointer; margin-bottom: .7rem; }
ul { margin: 0 0 1.6rem; padding-left: 1.2rem; }
li { margin-bottom: .3rem; }
@media (max-width: 40rem) { main { padding: 1.5rem 1rem 3rem; } h1 { font-size: 1.4rem; } }
@media print {
  @page { margin: 18mm 16mm; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 16pt; }
  h2 { margin-top: 1.6rem; break-after: avoid; }
  figure, tr, .answers, .verdict { break-inside: avoid; }
  thead { display: table-header-group; }
  .table { overflow: visible; }
  pre { border: 1px solid var(--rule); }
  details::details-content { content-visibility: visible; height: auto; }
}
"""
