"""Bring docs/performance.md and docs/scaling.md up to date with measurements: ``python -m benchmarks.report [FILE]``.

FILE is what ``python -m benchmarks --json`` wrote (benchmarks/results.json). What lies between the marks
``<!-- measured: NAME -->`` and ``<!-- end -->`` of the documents is written again, and so are the plots; the prose around it is
people's.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import capacity, svg
from benchmarks.results import Result
from benchmarks.stack import ROOT
from benchmarks.stats import Spread, column
from benchmarks.tables import aligned, cpu, figure_lines, main_measurement, markdown, side_lines

RESULTS = ROOT / "benchmarks" / "results.json"
DOCS = ROOT / "docs"
IMAGES = DOCS / "images"
_MARK = re.compile(r"(<!-- measured: (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
Results = dict[str, Any]


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    results: Results = msgspec.json.decode(path.read_bytes())
    for name in ("performance.md", "scaling.md"):
        document = DOCS / name
        document.write_text(fill(document.read_text(encoding="utf-8"), results), encoding="utf-8")
    for name, plot in plots(results).items():
        (IMAGES / f"performance-{name}.svg").write_text(plot, encoding="utf-8")


def fill(text: str, results: Results) -> str:
    """The document with everything measured in it replaced.

    Raises:
        KeyError: The document asks for something that is not known here.
    """

    def replace(found: re.Match[str]) -> str:
        name, _, argument = found["name"].partition(" ")
        section = SECTIONS[name](results, argument) if argument else SECTIONS[name](results)
        return f"{found[1]}{section}\n{found[3]}"

    return _MARK.sub(replace, text)


def scenario(results: Results, name: str) -> Result | None:
    """A scenario's result; None where it was not run."""
    found = results["scenarios"].get(name)
    return None if found is None else msgspec.convert(found["result"], Result)


def all_figures(results: Results) -> dict[str, Spread]:
    """The figures of every scenario that was run."""
    figures: dict[str, Spread] = {}
    for name in results["scenarios"]:
        if (result := scenario(results, name)) is not None:
            figures |= result.figures
    return figures


def _machine(results: Results) -> str:
    found = results["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in found["libraries"].items())
    settings = ", ".join(f"`{name} = {value}`" for name, value in found["postgresql_settings"].items())
    return (
        f"{found['cores']} cores of {found['processor']}, {found['memory_gb']} GB, {found['system']}; Python "
        f"{found['python']}, RabbitMQ {found['rabbitmq']}, {libraries}. PostgreSQL with {settings}; everything else is the "
        f"default, `fsync`, `full_page_writes` and `synchronous_commit` are on. Measured {found['date']} on commit "
        f"{found['commit']}."
    )


def _figures(results: Results) -> str:
    return markdown(figure_lines(all_figures(results)))


def _sides(results: Results, name: str) -> str:
    result = scenario(results, name)
    if result is None:
        return "Not measured yet."
    notes = "".join(f"{note[0].upper()}{note[1:]}. " for note in result.notes)
    form = results["scenarios"][name]["form"]
    turns = max(len(turns) for turns in result.sides.values())
    return f"{notes}The {form} form, {turns} turns.\n\n{markdown(side_lines(result))}"


def _partitions(results: Results) -> str:
    result = scenario(results, "partitions")
    if result is None:
        return "Not measured yet."
    reads = [name for name in next(iter(result.sides.values()))[0] if name.endswith(", ms")]
    lines = [["log", "events/s", "PostgreSQL, µs an event", "WAL, bytes an event", *reads]]
    for side, turns in result.sides.items():
        booked = ["", "", ""]
        if "events_per_second" in turns[0]:
            rate, wal = (Spread.of(column(turns, name)).median for name in ("events_per_second", "wal_bytes_per_event"))
            booked = [f"{rate:,.0f}", f"{cpu(turns)['postgresql']:.1f}", f"{wal:,.0f}"]
        lines.append([side, *booked, *(f"{Spread.of(column(turns, name)).median:.2f}" for name in reads)])
    return markdown(lines)


def _profile(results: Results, what: str) -> str:
    result = scenario(results, "profile")
    if result is None:
        return "Not measured yet."
    if what in {"statements", "alone"}:
        lines = [["statement", "calls", "µs an event", "WAL, bytes an event"]]
        for one in result.more[what][:6]:
            text = one["statement"].replace("|", "\\|")
            lines.append(
                [
                    f"`{text[:80]}`",
                    f"{one['calls']:,}",
                    f"{one['us_per_event']:.2f}",
                    f"{one['wal_bytes_per_event']:,.0f}",
                ]
            )
        return markdown(lines)
    if what == "plans":
        return "\n\n".join(f"```\n{plan}\n```" for plan in result.more["plans"])
    lines = [["function", "share of the interpreter's time"]]
    lines += [
        [f"`{name}`", f"{share:.1%}"] for name, share in list(result.more.get(what, {}).get("own", {}).items())[:14]
    ]
    return markdown(lines)


_PLOTS = {
    "rates": "Rates, end to end",
    "cpu": "Processor time of an event by process",
    "memory": "A worker's resident memory",
}


def _plot(results: Results, name: str) -> str:
    return f"![{_PLOTS[name]}](images/performance-{name}.svg)" if name in plots(results) else "Not measured yet."


def plots(results: Results) -> dict[str, str]:
    """The plots that can be drawn, by name."""
    drawn: dict[str, str] = {}
    result = scenario(results, "end-to-end")
    if result is not None:
        rows = []
        for side, turns in result.sides.items():
            main = main_measurement(turns)
            assert main is not None
            rows.append((side, main[1].median, main[1].low, main[1].high))
        drawn["rates"] = svg.bars("Booked and flagged, end to end", rows, "events/s")
        rows_cpu = [(side, cpu(turns)) for side, turns in result.sides.items() if side not in {"floor", "foreign"}]
        drawn["cpu"] = svg.stacked("Processor time of an event by process", rows_cpu, "µs")
    result = scenario(results, "memory")
    if result is not None:
        samples = result.sides["one worker"][0]["samples"]
        drawn["memory"] = svg.line("A worker's resident memory", samples, "million events", "MB")
    return drawn


SECTIONS: dict[str, Callable[..., str]] = {
    "machine": _machine,
    "figures": _figures,
    "plot": _plot,
    "sides": _sides,
    "partitions": _partitions,
    "profile": _profile,
    "costs": lambda results: markdown(capacity.cost_lines(capacity.costs(results))),
    "model": lambda results: markdown(capacity.model_lines(capacity.costs(results))),
    "simulation": lambda results: markdown(capacity.simulation_lines(capacity.costs(results))),
}

if __name__ == "__main__":
    main()
    print(aligned(figure_lines(all_figures(msgspec.json.decode(RESULTS.read_bytes())))) if len(sys.argv) < 2 else "")
