"""The numbers of the benchmarks: statistics, targets, tables, plots, the report and the capacity model."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec
import pytest
from benchmarks.copying import _split, batches
from benchmarks.load import Load
from benchmarks.memory import growth_percent
from benchmarks.results import Result
from benchmarks.simulation import Setup, simulate
from benchmarks.stats import Spread, in_turns, percentile, ratio
from benchmarks.tables import aligned, bound_text, figure_lines, markdown, side_lines, value_text
from benchmarks.targets import TARGETS

from benchmarks import capacity, report, simulation, svg
from taximeter_db.ledger import binary_rows


def test_ratios_are_taken_turn_by_turn():
    assert ratio([10, 40, 20], [1, 2, 4]) == Spread(10, 5, 20)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        ratio([1, 2], [1])


def test_percentiles_are_values_that_occurred():
    values = [5, 1, 4, 2, 3]
    assert [percentile(values, p) for p in (0, 20, 21, 50, 99, 100)] == [1, 1, 2, 3, 5, 5]
    assert percentile(range(1, 1001), 99) == 990


def test_turns_go_back_and_forth(capsys):
    order = []
    results = in_turns(3, {side: lambda turn, side=side: order.append(side) or {"turn": turn} for side in "ab"})
    assert "".join(order) == "abbaab"
    assert results == {side: [{"turn": 0}, {"turn": 1}, {"turn": 2}] for side in "ab"}
    assert "3/3" in capsys.readouterr().out


def test_targets_know_their_direction():
    more, less = TARGETS["narrow/floor"], TARGETS["page 1"]
    assert [more.reached(value) for value in (149.9, 150, 249, 250)] == ["missed", "must", "must", "aim"]
    assert [less.reached(value) for value in (10.1, 10, 2.1, 2)] == ["missed", "must", "must", "aim"]
    for name, target in TARGETS.items():
        assert (target.aim > target.must) == (target.better == "more"), name


def test_figures_of_all_kinds_are_written_plainly():
    assert [
        value_text(v, u) for v, u in ((8046.2, "x"), (0.454, "x"), (90_001, "/s"), (4.77, "us"), (18.25, "ms"))
    ] == [
        "8,046x",
        "0.45x",
        "90,001/s",
        "4.77 µs",
        "18.2 ms",
    ]
    assert bound_text(0.9, "x", "more") == "≥ 0.9x"
    assert bound_text(60_000, "/s", "more") == "≥ 60,000/s"


def result() -> Result:
    turns = [
        {
            "events_per_second": rate,
            "cpu_us_per_event": {"worker": 5.0, "postgresql": 8.0},
            "wal_bytes_per_event": 600.0,
        }
        for rate in (100.0, 300.0, 200.0)
    ]
    return Result(sides={"narrow": turns, "floor": [dict(turn, events_per_second=1.0) for turn in turns]})


def test_tables_show_sides_and_figures():
    made = result()
    made.compare("narrow/floor", "narrow", "floor")
    sides = aligned(side_lines(made))
    assert "narrow, events/s" in sides
    assert "worker 5.0  postgresql 8.0" in sides
    (_, line) = figure_lines(made.figures)
    assert line[1:] == ["200x", "100x", "300x", "≥ 150x", "≥ 250x", "yes"]
    assert markdown([["a", "b"], ["1", "2"]]) == "| a | b |\n| --- | --: |\n| 1 | 2 |"


def measured() -> dict:
    narrow = {"producer": 9.0, "broker": 1.5, "worker": 7.0, "postgresql": 10.0, "valkey": 1.0}
    turn = {"events_per_second": 40_000.0, "cpu_us_per_event": narrow, "wal_bytes_per_event": 600.0}
    turn["stored_bytes_per_event"] = 450.0
    made = Result(sides={"narrow": [turn]}, figures={"narrow/floor": Spread(160, 150, 170)}, notes=["made up"])
    return {
        "machine": {
            "cores": 2,
            "processor": "P",
            "memory_gb": 8,
            "system": "S",
            "python": "3",
            "rabbitmq": "3",
            "libraries": {"celery": "5"},
            "postgresql_settings": {"max_wal_size": "8GB"},
            "date": "today",
            "commit": "abc",
        },
        "scenarios": {"end-to-end": {"form": "short", "seconds": 1, "result": msgspec.to_builtins(made)}},
    }


def test_the_report_replaces_what_lies_between_its_marks_and_nothing_else():
    text = "Prose.\n<!-- measured: figures -->\nold\n<!-- end -->\nMore.\n<!-- measured: sides end-to-end -->\n<!-- end -->\n"
    filled = report.fill(text, measured())
    assert filled.startswith("Prose.\n<!-- measured: figures -->\n| scenario |")
    assert "| 160x | 150x | 170x |" in filled
    assert "old" not in filled
    assert "<!-- end -->\nMore.\n" in filled
    assert "Made up. The short form, 1 turns." in filled
    assert report.fill(filled, measured()) == filled


@pytest.mark.parametrize("name", ["performance.md", "scaling.md"])
def test_the_documents_ask_for_nothing_unknown(name):
    text = (report.DOCS / name).read_text()
    asked = [found["name"].split()[0] for found in report._MARK.finditer(text)]
    assert asked
    assert set(asked) <= set(report.SECTIONS)
    assert text.count("<!-- measured:") == len(asked) == text.count("<!-- end -->")


def test_the_documents_are_those_of_the_results():
    results = msgspec.json.decode(report.RESULTS.read_bytes())
    text = (report.DOCS / "performance.md").read_text()
    assert report.fill(text, results) == text, "run `python -m benchmarks.report`"


@pytest.mark.parametrize(
    "plot",
    [
        svg.bars("A & B", [("one <side>", 3, 1, 4), ("two", 0, 0, 0)], "events/s"),
        svg.stacked("CPU", [("one", {"worker": 1.0, "broker": 2.0}), ("two", {"broker": 1.0})], "us"),
        svg.line("Memory", [(0, 100), (1, 120)], "million", "MB"),
    ],
)
def test_plots_are_well_formed_and_say_their_title(plot):
    root = ET.fromstring(plot)
    assert root.tag.endswith("svg")
    assert root.find("{http://www.w3.org/2000/svg}title").text


def test_loads_are_what_they_say():
    zipf = Load(events=20_000).workspace_ids()
    assert zipf == Load(events=20_000).workspace_ids()
    first, second = zipf.count("ws-000000"), zipf.count("ws-000001")
    assert 1.5 < first / second < 2.7
    assert set(Load(events=10, spread="hot").workspace_ids()) == {"ws-000000"}
    assert len(set(Load(events=5_000, spread="uniform", workspaces=100_000).workspace_ids())) > 4_800
    parts = [Load(events=10).share(part, 3) for part in range(3)]
    assert [part.events for part in parts] == [4, 3, 3]
    assert len({part.seed for part in parts}) == 3
    given, answer = Load(events=1, payload_bytes=1_800).texts()[0]
    assert len(given) == len(answer) == 900
    assert given != answer
    assert len(set(Load(events=100, ids="random").event_ids())) == 100


def test_binary_rows_are_split_where_they_end():
    made = [
        b"\x00\x02" + binary_rows.text("one") + binary_rows.NULL,
        b"\x00\x02" + binary_rows.text("") + binary_rows.text("x" * 300),
    ]
    data = binary_rows.COPY_HEADER + b"".join(made) + binary_rows.COPY_TRAILER
    assert _split(data) == made
    ((copied, names, counts),) = batches([("b", made[0]), ("a", made[1])], 5)
    assert (copied, names, counts) == (data, ["a", "b"], [1, 1])


def test_growth_is_seen_after_the_warm_up_only():
    flat = [(n, 50 + 50 * (n >= 20)) for n in range(101)]
    assert growth_percent(flat, 100) == 0
    leaking = [(n, 1_000 + n * 10) for n in range(101)]
    assert 20 < growth_percent(leaking, 100) < 40
    assert growth_percent([], 100) == 0


def setup(**changes) -> Setup:
    given = {"decode_us": 6, "flag_us": 1, "claim_us": 5, "locked_us": 5, "commit_us": 1_500, "seconds": 4.0}
    return Setup(**(given | {"events_per_second": 50_000.0} | changes))


def test_the_simulation_passes_through_what_it_can():
    calm = simulate(setup())
    assert calm.events_per_second == pytest.approx(50_000, rel=0.1)
    assert calm.p50_ms <= calm.p99_ms
    assert calm == simulate(setup()), "the same seed gives the same"


def test_the_simulation_is_bound_by_what_is_scarce():
    flood = setup(events_per_second=3_000_000.0, workers=16)
    one_queue = simulate(flood)
    # 5,000 events hold the hot rows for 25 ms and a commit
    assert one_queue.events_per_second == pytest.approx(5_000 / 0.0265, rel=0.1)
    assert one_queue.hot_rows_busy > 0.95
    sharded = simulate(msgspec.structs.replace(flood, shards=8))
    assert sharded.events_per_second > 3 * one_queue.events_per_second
    small = simulate(msgspec.structs.replace(flood, shards=8, database_cores=2))
    assert small.events_per_second == pytest.approx(200_000, rel=0.1), "two cores at 10 us an event"
    assert small.database_busy > 0.95
    lonely = simulate(setup(events_per_second=3_000_000.0, workers=1, claim_us=0.1, locked_us=0.1, commit_us=1))
    assert lonely.events_per_second == pytest.approx(1e6 / 7, rel=0.1), "one interpreter at 7 us an event"


def test_resources_serve_in_order():
    clock, order = simulation.Clock(), []
    resource = simulation.Resource(1)

    def process(name):
        yield "take", resource
        order.append((name, clock.now))
        yield "sleep", 1.0
        yield "give", resource

    for name in "abc":
        clock.at(0.0, process(name))
    clock.run(10)
    assert order == [("a", 0.0), ("b", 1.0), ("c", 2.0)]
    assert resource.free == 1


def test_the_model_grows_with_the_rate():
    cost = capacity.costs(measured())
    assert (cost.worker_us, cost.wal_bytes, cost.measured_per_second) == (7.0, 600.0, 40_000.0)
    assert capacity.cores(10.0, 60_000) == pytest.approx(1.0)
    lines = {line[0]: line[1:] for line in capacity.model_lines(cost)}
    assert lines["cores in PostgreSQL"] == ["0.2", "1.7", "16.7"]
    assert lines["PostgreSQL, write-ahead log, MB/s"] == ["6", "60", "600"]
    assert capacity.hottest_share(1) == pytest.approx(1)
    assert 0.13 < capacity.hottest_share(1_000_000) < 0.14
