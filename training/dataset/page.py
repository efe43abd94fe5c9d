"""Writes the cleaning report as CSV and as an HTML page."""

import csv
import html
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from training.dataset.report import WRONG, Line, Outcome, Sample
from training.files import written_whole
from training.storable import one_line, storable

COLUMNS: Final = ("source", "outcome", "reason", "rows", "where", "before", "after")

# What people who own data may not know, in the order of the page.
_OUTCOMES: Final[dict[Outcome, str]] = {
    "refused": "a training would end because of this",
    "warning": "a training would go on; a person should look at this",
    "broken": "a row without all of its cells, which was left out",
    "dropped": "a row that cleaning left out",
    "left out": "a row whose code no source creates",
    "ignored": "something that is not read",
    "guessed": "something that was read in the likeliest way",
    "repaired": "something that was restored with certainty",
    "overruled": "a row whose description has other codes in a source that takes precedence",
    "changed": "a row that cleaning changed",
    "kept": "a row that cleaning kept",
}
_CLEANERS: Final = {
    "code_changes": "an old code was replaced by its successor",
    "code_form": "the code was written with other characters than digits",
    "cut": "the code was cut to the configured digits",
    "leading_zero": "the code had lost its leading zero",
    "lower": "the description was put into lower case",
    "negation": "what follows a negation was cut",
    "pad": "zeros were added to a code of 6 digits",
    "plurals": "an s that stood alone was joined to its word",
    "remove_phrases": "a listed phrase was removed",
    "rounded_code": "the code had been rounded to a number",
    "strip": "spaces, and full stops or commas at the end, were removed",
    "unicode": "characters that nobody sees were removed, or accents were joined to their letters",
}
_LONGEST_SHOWN: Final = 200


def write_report(folder: Path, lines: Sequence[Line], title: str) -> list[Path]:
    """Write `cleaning_report.csv`, with one line for each sample, and `cleaning_report.html`."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        for sample in line.samples or [Sample("", "")]:
            shown = map(storable, (sample.where, sample.before, sample.after))
            writer.writerow((line.source, line.outcome, line.reason, line.rows, *shown))
    paths = [folder / "cleaning_report.csv", folder / "cleaning_report.html"]
    for path, content in zip(paths, (table.getvalue(), page(lines, title)), strict=True):
        with written_whole(path) as beside:
            beside.write_text(content, "utf-8")
    return paths


_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
  color: #222 }
table { border-collapse: collapse; width: 100%; table-layout: fixed; margin-bottom: 1.5rem }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd;
  overflow-wrap: anywhere }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.outcome { width: 6rem } .n { width: 5.5rem } .samples { width: 50% } .source { width: 14rem }
h2 { margin-top: 2.5rem; border-bottom: 2px solid #222 } h3 { margin-bottom: .3rem }
.verdict { font-size: 1.2rem } .refused { color: #a40000; font-weight: 600 }
.broken, .dropped, .left { color: #a40000 } .warning { color: #8a4b00; font-weight: 600 }
.kept, .fine { color: #1b6b1b } .changed, .guessed, .repaired, .ignored, .overruled { color: #7a5200 }
.means, small { color: #666 } small { margin-right: .6rem }
code { font-size: 13px } summary { cursor: pointer } dt { font-weight: 600; float: left; width: 7rem }
"""


def page(lines: Sequence[Line], title: str) -> str:
    """A single HTML page that loads nothing from elsewhere. What is wrong comes first, samples unfolded."""
    wrong = [line for line in lines if line.outcome in WRONG]
    return "\n".join(
        [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>",
            f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
            _verdict(lines),
            *_overview(lines),
            "<h2>What is wrong</h2>",
            *(_tables(wrong, opened=True) if wrong else ["<p>Nothing was found.</p>"]),
            "<h2>What was guessed, repaired, changed and kept</h2>",
            *_tables([line for line in lines if line.outcome not in WRONG], opened=False),
            "<h2>What the words mean</h2><dl>",
            *(f"<dt>{outcome}<dd>{means}" for outcome, means in _OUTCOMES.items()),
            "</dl>",
            "",
        ]
    )


def _verdict(lines: Sequence[Line]) -> str:
    refused, warnings = (sum(line.outcome == outcome for line in lines) for outcome in ("refused", "warning"))
    if refused:
        kind, text = "refused", _failure(refused, warnings)
    elif warnings:
        kind, text = "warning", "A training with this data would succeed, but somebody should look at it"
    else:
        return '<p class="verdict fine">A training can use this data.</p>'
    return f'<p class="verdict {kind}">{text}.</p>'


def _failure(refused: int, warnings: int) -> str:
    more = f". There are also {_counted(warnings, 'warning')}" if warnings else ""
    return f"A training with this data would fail because of {_counted(refused, 'refusal')}{more}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _overview(lines: Sequence[Line]) -> Iterator[str]:
    """One row for each source, with the shares of its rows."""
    yield "<table><tr><th class=source>source<th>state"
    yield "".join(
        f"<th class=n>{name}" for name in ("rows", "usable", "share", "broken", "dropped", "left out")
    )
    for name in dict.fromkeys(line.source for line in lines):
        of_source = [line for line in lines if line.source == name]
        rows = {
            outcome: sum(line.rows for line in of_source if line.outcome == outcome) for outcome in _OUTCOMES
        }
        state = next((line.outcome for line in of_source if line.outcome in {"refused", "warning"}), "fine")
        total = rows["kept"] + rows["dropped"] + rows["broken"]
        usable = rows["kept"] - rows["left out"]
        share = f"{100 * usable / total:.1f}%" if total else ""
        counts = (f"{rows[outcome]:,}" for outcome in ("broken", "dropped", "left out"))
        cells = (f"{total:,}", f"{usable:,}", share, *counts) if total else ("",) * 6
        yield f'<tr><td>{html.escape(name)}<td class="{state}">{state}' + "".join(
            f"<td class=n>{cell}" for cell in cells
        )
    yield "</table>"


def _tables(lines: Sequence[Line], *, opened: bool) -> Iterator[str]:
    """One table for each source."""
    for name in dict.fromkeys(line.source for line in lines):
        yield (
            f"<h3>{html.escape(name)}</h3><table><tr><th class=outcome>outcome<th>reason<th class=n>rows"
            "<th class=samples>samples"
        )
        for line in (line for line in lines if line.source == name):
            outcome = f'<tr><td class="{line.outcome}">{line.outcome}'
            if line.outcome in {"refused", "warning"}:
                yield f"{outcome}<td colspan=3>{html.escape(line.reason)}"
            else:
                samples = _samples(line, opened=opened)
                yield f"{outcome}<td>{_reason(line)}<td class=n>{line.rows:,}<td>{samples}"
        yield "</table>"


def _reason(line: Line) -> str:
    means = _CLEANERS.get(line.reason)
    explained = f" <span class=means>{means}</span>" if means else ""
    return html.escape(line.reason) + explained


def _samples(line: Line, *, opened: bool) -> str:
    if not line.samples:
        return ""
    shown = "<br>".join(_shown(sample) for sample in line.samples)
    summary = f"<summary>{len(line.samples)} of {line.rows:,}</summary>"
    return f"<details{' open' if opened else ''}>{summary}{shown}</details>"


def _shown(sample: Sample) -> str:
    where = f"<small>{_text(sample.where)}</small>" if sample.where else ""
    # A row, before and after: what was before may be empty.
    texts = [f"<code>{_text(text)}</code>" for text in (sample.before, sample.after) if text]
    return where + " → ".join(texts)


def _text(text: str) -> str:
    return html.escape(one_line(text, _LONGEST_SHOWN))
