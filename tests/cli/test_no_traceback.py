"""Nothing that a person types, and no state of what is around it, makes a command show a traceback.

Commands run within this process, as `taximeter_cli.main.run` runs them; those that depend on the streams run as processes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import typer
from psycopg import sql

from cloud_events import usage_event
from instances import COMMAND, environment
from servers.databases import drop_database
from taximeter_cli import main
from taximeter_cli.embedded.logins import part_url
from taximeter_cli.embedded.postgres import ROLE, Postgres
from taximeter_db.errors import ConfigurationError
from taximeter_worker.settings import Settings

EVENT = usage_event(event_id="e-1", time="2026-01-01T00:00:00Z", provider="openai", model="gpt-4o")
# Every command with arguments that make sense; a test holds the list complete.
SENSIBLE: dict[tuple[str, ...], tuple[str, ...]] = {
    ("env",): (),
    ("migrate",): (),
    ("workspace", "show"): ("acme",),
    ("workspace", "set"): ("acme", "--minimum-balance", "-2"),
    ("workspace", "readers"): ("acme", "--allow", "ada"),
    ("workspace", "erase-payloads"): ("acme", "--yes"),
    ("credit",): ("acme", "5.00", "--id", "p-1"),
    ("statement",): ("acme",),
    ("receipt",): ("acme", "p-1"),
    ("publish",): ("events.ndjson",),
    ("drain",): ("--from", "redis://127.0.0.1:1/0"),
    ("reconcile",): ("openai", "bill.json"),
    ("rebuild",): (),
    ("prices", "set"): ("--tool", "chat", "--unit", "pages", "--price", "1"),
    ("prices", "policy"): ("free", "--tool", "chat"),
    ("prices", "missing"): (),
    ("prices", "reprice"): ("--since", "2026-01-01"),
    ("prices", "simulate"): ("book.json", "--since", "2026-01-01"),
    ("prices", "diff"): ("book", "book.json"),
    ("prices", "list"): (),
    ("prices", "import"): ("book.json",),
    ("prices", "export"): (),
    ("prices", "explain"): ("events.ndjson",),
    ("quarantine", "list"): (),
    ("quarantine", "show"): ("1",),
    ("quarantine", "replay"): ("--all",),
    ("quarantine", "dismiss"): ("1", "--note", "a test"),
    ("quarantine", "erase"): ("1", "--yes"),
    ("flags", "rebuild"): (),
    ("keys", "new"): (),
    ("keys", "list"): (),
    ("keys", "rotate"): (),
    ("keys", "abandon"): ("old", "--yes"),
    ("producers", "new"): ("chat-eu", "--workspace", "acme"),
    ("producers", "list"): (),
    ("producers", "revoke"): ("chat-eu",),
    ("tokens", "new"): ("report", "--workspace", "acme", "--read"),
    ("tokens", "list"): (),
    ("tokens", "revoke"): ("report",),
    ("budget", "set"): ("acme", "team", "--limit", "5", "--period", "month"),
    ("budget", "list"): ("acme",),
    ("budget", "show"): ("acme", "team"),
    ("budget", "remove"): ("acme", "team"),
    ("rollups", "rebuild"): (),
    ("notify", "add"): ("--webhook", "https://hooks.example.com/1", "--workspace", "acme"),
    ("notify", "list"): (),
    ("notify", "test"): ("1", "--timeout", "1"),
    ("notify", "replay"): ("1",),
    ("notify", "rotate"): ("1",),
    ("notify", "log"): ("acme",),
    ("notify", "remove"): ("1",),
    ("verify",): (),
    ("checkpoint",): ("log.checkpoint",),
    ("doctor",): (),
    ("version",): (),
}
# These run until they are stopped: tests/cli/test_up.py, tests/worker/test_processes.py, test_secrets.py.
SERVING = {("up",), ("worker",), ("dashboard",), ("gateway",)}
NASTY = (
    "",
    " ",
    "-",
    "--",
    "-1",
    "0",
    "1",
    "999999999999999999999999",
    "1e400",
    "NaN",
    "0.0000000000001",
    "acme",
    "모델",
    "\N{FULLWIDTH DIGIT ONE}",
    os.fsdecode(b"\xff\xfe"),
    "0001-01-01",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "x" * 5000,
    "../..",
    "/nonexistent/folder/file",
    "a=b",
    "=",
    "a=b=c",
    "data.quantities.input_tokens=1",
    "%s %(x)s {} {0}",
    "{",
    "[]",
    "'; DROP TABLE x; --",
    "\x1b[31mred",
    "a\nb",
    "1=2",
    "25:61-99:99=1",
    "00:00-00:00=0",
    "events.ndjson",
    "book.json",
    "bytes.bin",
    "folder",
    "empty",
    "deep.json",
    "half.csv",
    "log.checkpoint",
)
PASSWORD = "hunter2hunter2"


def _commands(group: Any = None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    group = group or typer.main.get_command(main.app)
    if not hasattr(group, "commands"):
        return {path: group}
    return {key: value for name, sub in group.commands.items() for key, value in _commands(sub, (*path, name)).items()}


COMMANDS = _commands()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with files of every kind, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("TAXIMETER_"):
            monkeypatch.delenv(name)
    (tmp_path / "events.ndjson").write_text(json.dumps(EVENT) + "\n")
    (tmp_path / "book.json").write_text('{"format": "taximeter-prices-1"}')
    (tmp_path / "bill.json").write_text('{"object": "page", "data": [], "has_more": false, "next_page": null}')
    (tmp_path / "bytes.bin").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "deep.json").write_text("[" * 200_000)
    (tmp_path / "half.csv").write_text('a,b\n1,"2\n\x00,\udcff\n', errors="surrogateescape")
    (tmp_path / "log.checkpoint").write_text("{}\n")
    (tmp_path / "folder").mkdir()
    return tmp_path


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run one command here; returns its exit code and what it said."""
    with (folder / "empty").open(encoding="utf-8") as nothing:

        def one(*arguments: str) -> tuple[int, str]:
            monkeypatch.setattr(sys, "argv", ["taximeter", *arguments])
            monkeypatch.setattr(sys, "stdin", nothing)
            code = main.run()
            told = capfd.readouterr()
            text = told.out + told.err
            assert "Traceback" not in text, (arguments, text)
            assert "this is a fault of Taximeter" not in text, (arguments, text)
            assert code in {0, 1, 2}, (arguments, code)
            assert code == 0 or told.err or told.out, arguments
            return code, text

        yield one


@pytest.fixture
def installed(database_url: str, redis_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A whole installation in the environment."""
    address = urlsplit(redis_url)
    given = {
        "TAXIMETER_DATABASE_URL": database_url,
        "TAXIMETER_REDIS_URL": redis_url,
        "TAXIMETER_BROKER_URL": address._replace(path="/1").geturl(),
        "TAXIMETER_MASTER_KEY": "A" * 43 + "=",
        "TAXIMETER_CHECKPOINT_KEY": "k" * 44,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


def test_every_command_is_tried():
    assert set(COMMANDS) == set(SENSIBLE) | SERVING


def _made_up(command: Any, chance: random.Random) -> list[str]:
    """Arguments for a command: each that is needed, some of the others, now and then something else."""
    arguments: list[str] = []
    positional: list[str] = []
    for param in command.params:
        if param.name == "data_dir" or (not param.required and chance.random() < 0.6):
            continue
        if param.param_type_name == "argument":
            positional.append(chance.choice(NASTY))
        elif getattr(param, "is_flag", False):
            arguments.append(param.opts[-1])
        else:
            arguments += [param.opts[-1], chance.choice(NASTY)]
    if chance.random() < 0.1:
        positional.append(chance.choice(NASTY))
    if chance.random() < 0.3:
        positional.insert(0, "--")
    return [argument for argument in (*arguments, *positional) if "\0" not in argument]


@pytest.mark.parametrize("path", [path for path in COMMANDS if path not in SERVING], ids=" ".join)
def test_no_arguments_make_a_command_fall_over(path: tuple[str, ...], run: Run, installed: dict[str, str]):
    seed = int(os.environ.get("TAXIMETER_SEED", "1"))
    chance = random.Random(f"{seed} {path}")
    for _ in range(int(os.environ.get("TAXIMETER_TEST_EXAMPLES", "12"))):
        run(*path, *_made_up(COMMANDS[path], chance))
    run(*path, "--help")
    run(*path, "--no-such-option")


def _with_database(url: str, **statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements.values():
            conn.execute(statement)


class Surroundings:
    """The states of an installation in which nothing works as it should."""

    def __init__(self, postgres: Postgres, given: dict[str, str], set_variable: Callable[[str, str], None]) -> None:
        self.postgres, self.given, self.set = postgres, given, set_variable
        self.made: list[str] = []

    def _database(self, value: str) -> None:
        self.set("TAXIMETER_DATABASE_URL", value)

    def no_database(self) -> None:
        self._database("postgresql://someone:pw@127.0.0.1:1/ledger")

    def wrong_password(self) -> None:
        place = urlsplit(self.given["TAXIMETER_DATABASE_URL"]).netloc.rpartition("@")[2]
        self._database(f"postgresql://someone:{PASSWORD}@{place}/ledger")

    def hash_in_the_password(self) -> None:
        self._database(f"postgresql://someone:12345#{PASSWORD}@127.0.0.1:5432/ledger")

    def hash_in_the_password_of_redis(self) -> None:
        self.set("TAXIMETER_REDIS_URL", f"redis://someone:12345#{PASSWORD}@127.0.0.1:6379/0")
        self.set("TAXIMETER_BROKER_URL", f"redis://someone:12345#{PASSWORD}@127.0.0.1:6379/1")

    def not_migrated(self) -> None:
        self._encoding("UTF8")

    def latin1(self) -> None:
        self._encoding("LATIN1")

    def sql_ascii(self) -> None:
        self._encoding("SQL_ASCII")

    def _encoding(self, encoding: str) -> None:
        name = f"t_{encoding.lower()}_{os.getpid()}"
        self.made.append(name)
        drop_database(self.postgres, name)
        with psycopg.connect(self.postgres.admin_url(), autocommit=True) as conn:
            conn.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LOCALE 'C'").format(
                    sql.Identifier(name), sql.Identifier(ROLE), sql.Literal(encoding)
                )
            )
        self._database(self.postgres.url(name))

    def newer_schema(self) -> None:
        _with_database(
            self.given["TAXIMETER_DATABASE_URL"], a="UPDATE taximeter.alembic_version SET version_num = '9999'"
        )

    def newer_tables(self) -> None:
        _with_database(
            self.given["TAXIMETER_DATABASE_URL"],
            a="ALTER TABLE taximeter.workspaces RENAME COLUMN usage_count TO usages",
            b="ALTER TABLE taximeter.quarantine RENAME COLUMN reason TO cause",
            c="ALTER TABLE taximeter.price_entries RENAME TO prices",
            d="ALTER TABLE taximeter.usages RENAME COLUMN seq TO number",
        )

    def read_only(self) -> None:
        self._database(self.given["TAXIMETER_DATABASE_URL"] + self._option("default_transaction_read_only=on"))

    def hasty(self) -> None:
        self._database(self.given["TAXIMETER_DATABASE_URL"] + self._option("statement_timeout=1"))

    def _option(self, text: str) -> str:
        mark = "&" if "?" in self.given["TAXIMETER_DATABASE_URL"] else "?"
        return f"{mark}options=-c%20{text.replace('=', '%3D')}"

    def few_rights(self) -> None:
        self._database(part_url(self.given["TAXIMETER_DATABASE_URL"], "dashboard"))

    def no_redis(self) -> None:
        self.set("TAXIMETER_REDIS_URL", "redis://127.0.0.1:1/0")

    def wrong_password_of_redis(self) -> None:
        place = urlsplit(self.given["TAXIMETER_REDIS_URL"]).netloc.rpartition("@")[2]
        self.set("TAXIMETER_REDIS_URL", f"redis://someone:{PASSWORD}@{place}/0")
        self.set("TAXIMETER_BROKER_URL", f"redis://someone:{PASSWORD}@{place}/1")

    def no_broker(self) -> None:
        self.set("TAXIMETER_BROKER_URL", "amqp://someone:pw@127.0.0.1:1//")

    def another_server(self) -> None:
        """Addresses that lead to the other's server."""
        address = urlsplit(self.given["TAXIMETER_REDIS_URL"])
        self._database(f"postgresql://x@{address.hostname}:{address.port}/ledger?connect_timeout=2")
        place = urlsplit(self.given["TAXIMETER_DATABASE_URL"])
        self.set("TAXIMETER_REDIS_URL", f"redis://{place.hostname}:{place.port}/0")

    def another_kind(self) -> None:
        self._database("mysql://h/d")
        self.set("TAXIMETER_REDIS_URL", "http://h")
        self.set("TAXIMETER_BROKER_URL", "kafka://h")

    def wrong_keys(self) -> None:
        self.set("TAXIMETER_MASTER_KEY", "short")
        self.set("TAXIMETER_CHECKPOINT_KEY_FILE", "/nonexistent")

    def contradictions(self) -> None:
        self.set("TAXIMETER_MINIMUM_BALANCE", "5")

    def misspelled(self) -> None:
        self.set("TAXIMETER_DATABSE_URL", "x")


STATES = [name for name in vars(Surroundings) if not name.startswith("_")]


@pytest.fixture
def surroundings(
    postgres: Postgres, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Surroundings]:
    made = Surroundings(postgres, installed, monkeypatch.setenv)
    yield made
    for name in made.made:
        drop_database(postgres, name)


@pytest.mark.parametrize("state", STATES)
def test_no_surroundings_make_a_command_fall_over(
    state: str, surroundings: Surroundings, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("taximeter_cli.commands.publish.CONFIRM_SECONDS_MAX", 0.5)
    getattr(surroundings, state)()
    for path, arguments in SENSIBLE.items():
        _, text = run(*path, *arguments)
        assert PASSWORD not in text, (path, text)
        assert "12345" not in text, (path, text)
        if state == "misspelled":
            assert "Did you mean TAXIMETER_DATABASE_URL?" in text


ALL_COMMANDS = """
import sys
from taximeter_cli import entry
for words in {commands!r}:
    sys.argv = ["taximeter", *words]
    code = entry.main()
    assert code in (0, 1, 2), (words, code)
    assert sys.stdout.encoding == sys.stderr.encoding == {encoding!r}, sys.stdout.encoding
"""


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
def test_a_terminal_without_unicode_gets_plain_characters(encoding: str, installed: dict[str, str], folder: Path):
    event = {**EVENT, "data": {**EVENT["data"], "model": "모델", "tool": "chät"}}
    (folder / "foreign.ndjson").write_text(json.dumps(event) + "\n")
    words = [[*path, *arguments] for path, arguments in SENSIBLE.items()]
    words += [[*path, "--help"] for path in COMMANDS]
    words += [["prices", "explain", "foreign.ndjson"], ["credit", "--id", "zwölf", "acme", "5"], ["prices", "import"]]
    words += [["prices", "export", "book-now.json"], ["prices", "list", "--limit", "1000"]]
    away = {**installed, "TAXIMETER_DATABASE_URL": "postgresql://zwölf@127.0.0.1:1/모델"}
    for given in (installed, away):
        asked = words if given is installed else words[: len(SENSIBLE)]
        done = subprocess.run(
            [sys.executable, "-c", ALL_COMMANDS.format(commands=asked, encoding=encoding)],
            env=environment(**given, PYTHONIOENCODING=encoding),
            cwd=folder,
            capture_output=True,
            check=False,
        )
        told = (done.stdout + done.stderr).decode(encoding)
        assert done.returncode == 0, told
        assert "Traceback" not in told
        if given is installed:
            assert "\\ubaa8\\ub378" in told  # the model's name
            assert ("ch\\xe4t" in told) == (encoding == "ascii")


WITHOUT_A_READER = """
import os, sys
from taximeter_cli import entry
report, kept, codes = os.fdopen(os.dup(2), "w", encoding="utf-8"), [], {{}}
for words in {commands!r}:
    reader, writer = os.pipe()
    os.close(reader)
    told = os.open("told", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(writer, 1)
    os.dup2(writer if {both} else told, 2)
    os.close(writer)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    kept += (sys.stdout, sys.stderr)
    sys.argv = ["taximeter", *words]
    code = entry.main()
    kept += (sys.stdout, sys.stderr)
    text = os.pread(told, 1 << 20, 0).decode("utf-8", "replace")
    os.close(told)
    fine = {both} or code == 0 or "taximeter: " in text or (code == 2 and "Usage: " in text)
    codes[" ".join(words)] = code
    if not fine or any(wrong in text for wrong in ("Traceback", "could not be written", "roken pipe", "Exception ignored")):
        print("WRONG", words, code, text, file=report)
failed = {{words for words, code in codes.items() if code}}
if not {failing!r} <= failed or set(codes.values()) - {{0, 1, 2}} or codes["no-such-command"] != 2:
    print("WRONG", codes, file=report)
report.flush()
os._exit(0)
"""


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_no_command_complains_of_a_closed_pipe(both: bool, installed: dict[str, str], folder: Path):
    """Whoever read had enough before the first word was written; what the command does is done all the same."""
    words = [["--help"], ["prices", "--help"], ["no-such-command"], ["tokens", "revoke", "absent"]]
    failing = {" ".join(words[-1])}
    words += [[*path, *arguments, *(["--json"] * _has_json(path))] for path, arguments in SENSIBLE.items()]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_READER.format(commands=words, both=both, failing=failing)],
        env=environment(**installed, TAXIMETER_DATABSE_URL="misspelled"),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with psycopg.connect(installed["TAXIMETER_DATABASE_URL"]) as conn:
        assert conn.execute("SELECT amount FROM taximeter.payments").fetchall() == [(5,)]
        assert conn.execute("SELECT minimum_balance FROM taximeter.workspaces").fetchall() == [(-2,)]


def _has_json(path: tuple[str, ...]) -> bool:
    return any("--json" in param.opts for param in COMMANDS[path].params)


def test_a_closed_pipe_ends_a_command_quietly(installed: dict[str, str], folder: Path):
    subprocess.run([*COMMAND, "prices", "import"], env=environment(**installed), check=True, capture_output=True)
    for words in (("prices", "list", "--limit", "100000"), ("prices", "export"), ("--help",)):
        process = subprocess.Popen(
            [*COMMAND, *words], env=environment(**installed), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.close()
        _, told = process.communicate(timeout=180)
        assert (process.returncode, told) == (0, b""), words


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stream_that_was_never_open_is_no_fault(number: int, folder: Path):
    """As `>&-` leaves it, and some supervisors."""
    redirect = {0: "<&-", 1: ">&-", 2: "2>&-"}[number]
    done = subprocess.run(
        ["sh", "-c", f'"$0" "$@" {redirect}', *COMMAND, "version"],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_told(folder: Path):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "version"], env=environment(), cwd=folder, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_what_nobody_expected_is_a_sentence_and_a_traceback_only_with_debug(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def fall_over() -> None:
        raise ZeroDivisionError("what an event held")

    monkeypatch.setattr("taximeter_db.schema.newest", fall_over)
    monkeypatch.setattr(sys, "argv", ["taximeter", "version"])
    assert main.run() == 1
    told = capfd.readouterr().err
    assert "ZeroDivisionError" in told
    assert "--debug" in told
    assert "Traceback" not in told
    assert "what an event held" not in told
    monkeypatch.setattr(sys, "argv", ["taximeter", "--debug", "version"])
    assert main.run() == 1
    assert "Traceback" in capfd.readouterr().err


def test_settings_come_from_a_file_as_they_stand(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch):
    file = folder / "worker.env"
    file.write_text(
        "# a comment\n\nTAXIMETER_DATABASE_URL=postgresql://u:a%23b@127.0.0.1:1/d?sslmode=disable&connect_timeout=1\n"
        "export TAXIMETER_BROKER_URL='amqp://a;amqp://b'\n"
        'TAXIMETER_REDIS_URL="redis://127.0.0.1:1/0"\n'
    )
    code, text = run("--env-file", str(file), "workspace", "show", "acme")
    assert (code, "Connection refused" in text) == (1, True)
    assert os.environ["TAXIMETER_DATABASE_URL"].endswith("sslmode=disable&connect_timeout=1")
    assert os.environ["TAXIMETER_BROKER_URL"] == "amqp://a;amqp://b"
    for name in ("DATABASE", "BROKER", "REDIS"):
        monkeypatch.setenv(f"TAXIMETER_{name}_URL", "x")
        monkeypatch.delenv(f"TAXIMETER_{name}_URL")
    for wrong in ("nonsense", "TAXIMETER_X='open", "A B=c"):
        file.write_text(f"OK=1\n{wrong}\n")
        code, text = run("--env-file", str(file), "version")
        assert (code, "line 2" in text, wrong in text) == (2, True, False)
    for name in ("folder", "bytes.bin", "absent"):
        assert run("--env-file", name, "version")[0] == 2


@pytest.mark.parametrize("special", ["#", "/", "?"])
@pytest.mark.parametrize(
    ("words", "variable"),
    [
        (("credit", "acme", "5", "--id", "p"), "TAXIMETER_REDIS_URL"),
        (("workspace", "set", "acme", "--minimum-balance", "-3"), "TAXIMETER_REDIS_URL"),
        (("quarantine", "replay", "--all"), "TAXIMETER_REDIS_URL"),
        (("prices", "reprice", "--since", "2026-01-01", "--post", "--reason", "r"), "TAXIMETER_REDIS_URL"),
        (("flags", "rebuild"), "TAXIMETER_REDIS_URL"),
        (("publish", "events.ndjson"), "TAXIMETER_BROKER_URL"),
    ],
)
def test_addresses_are_read_before_anything_is_booked(
    words: tuple[str, ...],
    variable: str,
    special: str,
    run: Run,
    installed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
):
    good = installed[variable]
    monkeypatch.setenv(variable, f"redis://someone:{PASSWORD}{special}{PASSWORD}@127.0.0.1:6379/0")
    code, text = run(*words)
    assert code == 1
    assert variable in text
    assert "ercent-encode" in text
    assert PASSWORD not in text
    monkeypatch.setenv(variable, good)
    assert '"seen": false' in run("workspace", "show", "acme", "--json")[1]


def test_what_is_booked_is_no_failure_when_the_flag_cannot_be_written(
    run: Run, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    for number, address in enumerate(("redis://127.0.0.1:1/0", "redis://nobody:wrong@" + _place(installed))):
        monkeypatch.setenv("TAXIMETER_REDIS_URL", address)
        code, text = run("credit", "acme", "5", "--id", f"p-{number}")
        assert code == 0
        assert "The change is booked, but Redis did not take the flag" in text
        with psycopg.connect(installed["TAXIMETER_DATABASE_URL"]) as conn:
            assert conn.execute("SELECT workspace_id FROM taximeter.stale_flags").fetchall() == [("acme",)]


def _place(installed: dict[str, str]) -> str:
    return urlsplit(installed["TAXIMETER_REDIS_URL"]).netloc.rpartition("@")[2] + "/0"


def test_a_key_file_of_another_user_is_told_as_that(tmp_path: Path):
    file = tmp_path / "master-key"
    file.write_text("A" * 43 + "=")
    file.chmod(0o600 if os.geteuid() == 0 else 0)
    for folder in [tmp_path, *tmp_path.parents[:3]]:
        folder.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigurationError, match=r"TAXIMETER_MASTER_KEY_FILE.*may not read.*LoadCredential="):
            Settings.from_env(
                {"TAXIMETER_MASTER_KEY_FILE": str(file)}, without=["database_url", "broker_url", "redis_url"]
            )
    finally:
        os.seteuid(user)
