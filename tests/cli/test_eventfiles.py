"""Reading CSV and NDJSON: what becomes an event, and what is said of the rest."""

from __future__ import annotations

import datetime as dt
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taximeter_cli import event_files, main
from taximeter_cli.errors import CliError, UsageError


def mapping(file: Path, **given: Any) -> event_files.Mapped:
    return event_files.mapping_for(event_files.Source(file, str(file)), event_files.Mapped(**{"units": {}, **given}))


def csv_file(folder: Path, text: str) -> Path:
    file = folder / "usage.csv"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    return file


AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50,396,109\r\n"
)


def test_the_azure_columns_need_no_options(tmp_path: Path):
    file = csv_file(tmp_path, AZURE)
    mapped = mapping(file)
    assert (mapped.tool, mapped.provider, mapped.model, mapped.workspaces) == ("chat", "openai", "gpt-4o", 100)
    first, second = event_files.read_csv(file, mapped)
    assert first.workspace_id == "ws-000"
    assert second.workspace_id == "ws-001"
    assert first.quantities == {"input_tokens": 374, "output_tokens": 44}
    assert first.time == dt.datetime(2023, 11, 16, 18, 15, 46, 680590, tzinfo=dt.UTC)
    assert first.event_id.endswith("-0")
    assert (first.line, second.line) == (2, 3)
    assert mapping(file, workspace="one", model="x").workspaces is None


def test_ids_depend_on_content_and_row_alone(tmp_path: Path):
    first = csv_file(tmp_path, AZURE)
    ids = [row.event_id for row in event_files.read_csv(first, mapping(first))]
    copy = tmp_path / "copy.csv"
    copy.write_bytes(first.read_bytes())
    assert [row.event_id for row in event_files.read_csv(copy, mapping(copy, workspaces=7, model="m"))] == ids
    copy.write_bytes(first.read_bytes() + b"2023-11-16 18:15:51,1,1\r\n")
    assert not {row.event_id for row in event_files.read_csv(copy, mapping(copy))} & set(ids)


def test_bad_rows_are_named_and_leave_the_numbering_alone(tmp_path: Path):
    text = 't,n\n2026-01-01T00:00:00+01:00,1.5\n,2\n2026-01-01,x\n2026-01-01,\n2026-01-01,1_000\n2026-01-01,-1\n2026-01-01,"7\n"\n'
    file = csv_file(tmp_path, text)
    rows = list(
        event_files.read_csv(file, mapping(file, units={"n": "pages"}, time_column="t", tool="t", workspaces=2))
    )
    good = [row for row in rows if isinstance(row, event_files.Row)]
    assert [row.quantities for row in good] == [{"pages": Decimal("1.5")}, {"pages": 7}]
    assert [row.event_id.split("-")[1] for row in good] == ["0", "6"]
    assert good[0].time.isoformat() == "2026-01-01T00:00:00+01:00"
    problems = [row for row in rows if isinstance(row, event_files.Problem)]
    assert [problem.line for problem in problems] == [3, 4, 5, 6, 7]
    assert "write a time" in problems[0].sentence
    assert all("write" in problem.sentence for problem in problems)


def test_start_time_keeps_the_distances(tmp_path: Path):
    file = csv_file(tmp_path, AZURE)
    start = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    first, second = event_files.read_csv(file, mapping(file, start_time=start))
    assert first.time == start
    assert second.time - first.time == dt.timedelta(microseconds=3_319_410)


def test_columns_say_who_within_the_workspace_it_was(tmp_path: Path):
    file = csv_file(tmp_path, "n,who,dept,app\n1,u-17,search,web\n2,, ,web\n")
    tags = {"team": "dept", "app": "app"}
    told = {"units": {"n": "pages"}, "tool": "t", "workspace": "w", "user_column": "who", "tags": tags}
    first, second = event_files.read_csv(file, mapping(file, **told))
    assert (first.user, first.tags) == ("u-17", {"team": "search", "app": "web"})
    assert (second.user, second.tags) == (None, {"app": "web"})
    for missing in ({"user_column": "user"}, {"tags": {"team": "team"}}):
        with pytest.raises(UsageError, match="no column"):
            mapping(file, **{**told, **missing})


def test_what_no_header_can_tell_is_asked_for(tmp_path: Path):
    file = csv_file(tmp_path, "\ufeffwhen,tokens\n1,2\n")
    for given, word in (
        ({}, "--map"),
        ({"units": {"tokens": "input_tokens"}}, "--tool"),
        ({"units": {"tokens": "input_tokens"}, "tool": "t"}, "--workspace"),
        ({"units": {"nope": "input_tokens"}, "tool": "t", "workspace": "w"}, "'when', 'tokens'"),
        ({"units": {"tokens": "input_tokens"}, "tool": "t", "workspace": "w", "time_column": "nope"}, "nope"),
    ):
        with pytest.raises(UsageError, match=word):
            mapping(file, **given)


def source(folder: Path, name: str, text: str) -> event_files.Source:
    file = folder / "any"
    file.write_bytes(text.encode())
    return event_files.Source(file, name)


EVENT = '{"a": 1}\n'


@pytest.mark.parametrize(
    ("name", "text", "whole"),
    [
        ("a.ndjson", f"# a comment\n{EVENT}", True),
        ("a.jsonl", f"broken\n{EVENT}", True),
        ("A.JSON", EVENT, True),
        ("a.csv", "n\n1\n", False),
        ("a.csv", EVENT, False),
        ("stdin", f"\ufeff\n {EVENT}", True),
        ("a.txt", AZURE, False),
    ],
)
def test_the_ending_says_what_a_file_holds_or_else_its_first_line(tmp_path: Path, name: str, text: str, whole: bool):
    assert event_files.is_ndjson(source(tmp_path, name, text), mapped=False) is whole


def test_what_a_file_holds_may_be_said_by_a_mapping_alone(tmp_path: Path):
    other = source(tmp_path, "stdin", "n\n1\n")
    assert not event_files.is_ndjson(other, mapped=True)
    with pytest.raises(UsageError, match="stdin holds"):
        event_files.is_ndjson(other, mapped=False)


@pytest.mark.parametrize("name", ["a.ndjson", "a.json", "stdin", "a.csv"])
def test_an_empty_file_is_called_empty(tmp_path: Path, name: str):
    for text in ("", " \n\n", "\ufeff"):
        with pytest.raises(CliError, match="is empty"):
            event_files.is_ndjson(source(tmp_path, name, text), mapped=False)


@pytest.mark.parametrize(
    ("name", "word"), [("a.json", "one event a line"), ("stdin", "one event a line"), ("a.csv", "JSON")]
)
def test_an_array_is_refused_without_a_word_of_its_contents(tmp_path: Path, name: str, word: str):
    for text in ('[{"data": {"input": "private"}}]', '[\n{"data": {"input": "private"}}]'):
        array = source(tmp_path, name, text)
        with pytest.raises(CliError, match=word) as told:
            mapping_of(array, whole=event_files.is_ndjson(array, mapped=False))
        assert "private" not in str(told.value)


def mapping_of(given: event_files.Source, *, whole: bool) -> None:
    assert not whole
    event_files.mapping_for(given, event_files.Mapped({}))


def test_lines_are_numbered_as_in_the_file(tmp_path: Path):
    file = csv_file(tmp_path, '\ufeff\n{"a": 1}\n\n  {"b": 2}')
    assert list(event_files.read_ndjson(file)) == [(2, b'{"a": 1}'), (4, b'{"b": 2}')]


def test_a_long_cell_is_not_quoted(tmp_path: Path):
    file = csv_file(tmp_path, f"n,t\nWhat did I do wrong in my last interview?,x\n1,{'private ' * 9}\n")
    mapped = mapping(file, units={"n": "pages"}, time_column="t", tool="t", workspace="w")
    for row in event_files.read_csv(file, mapped):
        assert isinstance(row, event_files.Problem)
        assert "interview" not in row.sentence
        assert "private" not in row.sentence


def test_bytes_that_are_no_text_are_a_bad_row(tmp_path: Path):
    file = tmp_path / "usage.csv"
    file.write_bytes(b"n\n\xff\xfe\n3\n")
    rows = list(event_files.read_csv(file, mapping(file, units={"n": "pages"}, tool="t", workspace="w")))
    assert [type(row).__name__ for row in rows] == ["Problem", "Row"]
    rows[0].sentence.encode()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ((), "--map"),
        (("--map", "n=pages"), "--tool"),
        (("--map", "n=pages", "--tool", "t"), "--workspace"),
        (("--map", "m=pages", "--tool", "t", "--workspace", "w"), "no column 'm'"),
        (("--map", "n=pages", "--tool", "t", "--workspace", "no spaces"), "workspace id"),
        (("--map", "n=pages", "--tool", "t", "--workspace", "w", "--tag", "team"), "TAG=COLUMN"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_a_usage_error(
    tmp_path: Path,
    options: tuple[str, ...],
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(sys, "argv", ["taximeter", "publish", str(csv_file(tmp_path, "n\n1\n")), *options])
    assert main.run() == 2
    assert word in capsys.readouterr().err
