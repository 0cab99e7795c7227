"""The command as a shell sees it: streams, exit codes, terminals. What `kyb score` reads is in test_cli_input.py."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from app import __version__, settings, wire
from app.cli import meter
from app.cli.commands import kyb

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.json"))
PORTFOLIO = ROOT / "examples" / "portfolio.csv"
HEALTHY = ROOT / "examples" / "healthy-manufacturer.json"
MODEL = ROOT / "core" / "models" / "kyb-1.1.0.yaml"
LEAST = {"business": {"name": "Acme", "jurisdiction": "DE"}}
ESCAPE = "\x1b"

COMMAND = [sys.executable, "-m", "app.cli"]


def environment(**variables: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG") if name in os.environ}
    return {**kept, **variables}


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """The real command in a process of its own, with these variables of the environment only."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=b"", capture_output=True, cwd=ROOT, env=environment(**variables), timeout=60)


def call(*arguments: object, stdin: str | bytes = b"", **variables: str) -> Result:
    """The command within this process."""
    env: dict[str, str | None] = {"COLUMNS": "80", **dict.fromkeys(os.environ.keys() & FOREIGN), **variables}
    return CliRunner().invoke(kyb, list(map(str, arguments)), input=stdin, env=env)


FOREIGN = {"CONFIG_FILE", "MODEL", "MODEL_PATH", "FORCE_COLOR", "NO_COLOR", "HOST", "PORT", "WORKERS", "DATA_DIR"}


@pytest.fixture
def broken_model(tmp_path: Path) -> Path:
    text = MODEL.read_text()
    path = tmp_path / "broken.yaml"
    path.write_text(text.replace("released:", "relased:", 1).replace("base: 0", "base: nothing", 1))
    return path


def test_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"kyb {__version__}\n".encode(), b"")


@pytest.mark.parametrize("arguments", [[], ["score"], ["serve"], ["model"], ["model", "check"], ["config"]])
def test_help_is_there_for_every_command(arguments: list[str]) -> None:
    done = call(*arguments, "--help")
    assert done.exit_code == 0
    assert done.stdout.startswith("Usage: ")


@pytest.mark.parametrize("arguments", [["score"], ["serve"], ["config"], []])
def test_help_lists_the_exit_codes(arguments: list[str]) -> None:
    help_text = call(*arguments, "--help").stdout
    assert all(re.search(rf"^ +{code} +\w", help_text, re.MULTILINE) for code in (0, 1, 2, 3, 4, 70, 130, 141))


def test_nothing_heavy_is_imported_before_a_command_runs() -> None:
    code = (
        "import sys, app.cli.commands; print([m for m in ('msgspec', 'yaml', 'rich', 'granian') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == b"[]\n"


@pytest.mark.parametrize(
    "arguments", [["score"], ["scroe"], ["score", "--fast", "x"], ["score", "-", "--as-of", "soon"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr


# Scoring for programs


def test_json_is_one_assessment_a_line() -> None:
    done = run("score", PORTFOLIO, "--json")
    answers = [msgspec.json.decode(line, type=wire.Assessment) for line in done.stdout.splitlines()]
    assert [answer.business_id for answer in answers] == [f"port-0{place}" for place in range(1, 7)]
    assert {answer.id for answer in answers} == {None}
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_scored(path: Path) -> None:
    full = msgspec.json.decode(call("score", path, "--json", "--explain", "full").stdout, type=wire.Assessment)
    top = msgspec.json.decode(call("score", path, "--json").stdout, type=wire.Assessment)
    assert round(full.base + sum(reason.points for reason in full.reasons), 2) == full.score == top.score
    assert len(top.reasons) <= 6 < len(full.reasons)
    assert full.screening.status == "not_screened"
    shown = call("score", path)
    assert shown.exit_code == 0
    assert f"{full.score:.2f} of 100" in shown.stdout
    assert all(reason.code in shown.stdout for reason in top.reasons)


def test_the_day_counted_to_can_be_given(tmp_path: Path) -> None:
    answer = call("score", "-", "--json", "--as-of", "2024-02-29", stdin=json.dumps(LEAST)).stdout
    assert json.loads(answer)["as_of"] == "2024-02-29"


def test_a_bad_row_is_told_with_its_line_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    file, problems = tmp_path / "rows.ndjson", tmp_path / "problems"
    good = json.dumps(LEAST)
    file.write_text(
        f'{good}\n\n{{"business": {{"name": "A", "jurisdiction": "XX"}}}}\n{{"busines": 1}}\n{{"a"\n{good}\n'
    )
    done = run("score", file, "--json", "--problems", problems)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    told = done.stderr.decode().splitlines()
    assert told[0].startswith(f"{file}:3: /business/jurisdiction: ")
    assert [line.split(": ")[0] for line in told[:-1]] == [f"{file}:{line}" for line in (3, 4, 4, 5)]
    assert "did you mean business?" in done.stderr.decode()
    assert told[-1] == "2 scored (0 low, 0 medium, 2 high, 0 critical); 3 refused"
    listed = [json.loads(line) for line in problems.read_text().splitlines()]
    assert [(entry["line"], entry["problem"]["status"]) for entry in listed] == [(3, 422), (4, 422), (5, 400)]
    assert msgspec.convert(listed[0]["problem"], wire.Problem).errors[0].pointer == "/business/jurisdiction"


def test_thousands_of_rows_in_order(tmp_path: Path) -> None:
    file, output = tmp_path / "many.ndjson", tmp_path / "answers"
    with file.open("w") as rows:
        for place in range(5000):
            rows.write(json.dumps({"business": {**LEAST["business"], "id": f"row-{place}"}}) + "\n")
    done = run("score", file, "--json", "--output", output)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    answers = [json.loads(line)["business_id"] for line in output.read_text().splitlines()]
    assert answers == [f"row-{place}" for place in range(5000)]


def test_answers_come_as_soon_as_rows_do() -> None:
    command = [*COMMAND, "score", "-", "--format", "ndjson", "--json"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, cwd=ROOT, env=environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for place in ("first", "second"):
            process.stdin.write(json.dumps({"business": {**LEAST["business"], "id": place}}).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["business_id"] == place
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()


# Streams that fail


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path) -> None:
    file = tmp_path / "many.ndjson"
    file.write_text((json.dumps(LEAST) + "\n") * 3000)
    for options in ([], ["--json"]):
        command = [*COMMAND, "score", str(file), *options]
        with subprocess.Popen(command, stdout=-1, stderr=-1, cwd=ROOT, env=environment()) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.wait(60) == 141
            assert process.stderr.read() == b""


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, "score", PORTFOLIO], stdout=full, stderr=-1, cwd=ROOT, env=environment())
    assert done.returncode == 4
    assert done.stderr == b"kyb: standard output cannot be written: no space left on device\n"


def test_an_output_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    done = run("score", PORTFOLIO, "--output", tmp_path / "nowhere" / "answers")
    assert done.returncode == 4
    assert done.stderr == f"kyb: {tmp_path}/nowhere/answers cannot be written: no such file or directory\n".encode()


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text(json.dumps(LEAST))
    for options in (["-o", file], ["--problems", file], ["-o", tmp_path / "new", "--problems", tmp_path / "new"]):
        assert call("score", file, *options).exit_code == 2
    assert json.loads(file.read_text()) == LEAST


@pytest.mark.parametrize("command", [["score"], ["model", "check"], ["model", "show"]])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, command: list[str]) -> None:
    locked = tmp_path / "locked"
    locked.write_text("x")
    locked.chmod(0)
    reasons = {tmp_path / "missing.yaml": "no such file or directory", tmp_path: "is a directory"}
    if os.geteuid() != 0:
        reasons[locked] = "permission denied"
    for path, words in reasons.items():
        done = run(*command, path)
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr == f"kyb: {path} cannot be read: {words}\n".encode()


def test_closed_streams_are_told() -> None:
    shell = f"{sys.executable} -m app.cli score"
    for redirection, words in ((" - <&-", b"standard input is closed"), (f" {PORTFOLIO} >&-", b"standard output")):
        done = subprocess.run(["sh", "-c", shell + redirection], capture_output=True, cwd=ROOT, env=environment())
        assert done.returncode in (2, 4)
        assert words in done.stderr
        assert b"Traceback" not in done.stderr


# Settings and models


def test_settings_that_cannot_be_used_end_with_3_and_every_fault(tmp_path: Path) -> None:
    for command in (["score", PORTFOLIO], ["config"], ["serve"], ["model", "list"]):
        done = run(*command, PORT="high", WORKERS="none")
        assert (done.returncode, done.stdout) == (3, b"")
        assert b"environment PORT" in done.stderr
        assert b"environment WORKERS" in done.stderr
    assert run("config", "--config", tmp_path / "none.yaml").returncode == 3


def test_a_model_that_cannot_be_used_ends_with_3(tmp_path: Path, broken_model: Path) -> None:
    for options, words in (
        (["--model", "kyb@9.9.9"], "there is no model kyb@9.9.9; known: kyb@1.0.0, kyb@1.1.0"),
        (["--model", "best"], "option --model"),
        (["--model-path", tmp_path / "none.yaml"], "cannot be read: no such file or directory"),
        (["--model-path", broken_model], "relased"),
    ):
        done = call("score", PORTFOLIO, *options)
        assert (done.exit_code, done.stdout) == (3, "")
        assert words in done.stderr


def test_a_model_file_scores_like_the_packaged_model(tmp_path: Path) -> None:
    copy = tmp_path / "mine.yaml"
    copy.write_bytes(MODEL.read_bytes())
    assert call("score", PORTFOLIO, "--json", "--model-path", copy).stdout == call("score", PORTFOLIO, "--json").stdout


def test_a_sound_model_is_summed_up() -> None:
    done = run("model", "check", MODEL)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"kyb@1.1.0 is sound")
    for words in (b"sha256", b"low from 0", b"financial", b"reputational"):
        assert words in done.stdout


def test_a_model_with_faults_is_refused_with_all_of_them(broken_model: Path) -> None:
    done = run("model", "check", broken_model)
    assert (done.returncode, done.stdout) == (3, b"")
    lines = done.stderr.decode().splitlines()
    assert re.fullmatch(rf"kyb: {broken_model}: the model has \d+ faults:", lines[0])
    assert all(re.match(r"  line \d+: ", line) for line in lines[1:])
    assert {"relased", "released", "base"} <= set(re.findall(r"\w+", done.stderr.decode()))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"- a\n- b\n", b"a: [", b"%PDF-1.7 \x00\x01"])
def test_what_is_no_model_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(content)
    done = call("model", "check", path)
    assert (done.exit_code, done.stdout) == (3, "")
    assert re.search(r"line \d", done.stderr)


@pytest.mark.parametrize("which", [[], ["kyb@1.1.0"], [str(MODEL)]])
def test_a_model_is_shown(which: list[str]) -> None:
    shown = call("model", "show", *which)
    assert shown.exit_code == 0
    for words in ("kyb@1.1.0", "Financial strength", "years_trading", "OVR_NOT_SCREENED"):
        assert words in shown.stdout
    detail = msgspec.json.decode(call("model", "show", *which, "--json").stdout, type=wire.ModelDetail)
    assert detail.active
    assert len(detail.definition["characteristics"]) >= 40


def test_a_model_that_is_not_there() -> None:
    done = call("model", "show", "kyb@7.0.0")
    assert done.exit_code == 2
    assert "packaged: kyb@1.0.0, kyb@1.1.0" in done.stderr


def test_models_are_listed(tmp_path: Path) -> None:
    assert [line[:11] for line in call("model", "list").stdout.splitlines()[:2]] == ["  kyb@1.0.0", "* kyb@1.1.0"]
    other = tmp_path / "other.yaml"
    other.write_bytes(MODEL.read_bytes().replace(b"version: 1.1.0", b"version: 1.1.1", 1))
    listed = msgspec.json.decode(call("model", "list", "--json", MODEL_PATH=str(other)).stdout, type=wire.ModelList)
    assert [(model.version, model.active) for model in listed.items] == [
        ("1.0.0", False),
        ("1.1.0", False),
        ("1.1.1", True),
    ]


def test_config_prints_every_value_and_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("server: {backlog: 2048}\n")
    secret = "hunter2" * 5
    variables = {
        "CACHE_TTL": "300",
        "REDIS_URL": "redis://me:hunter2@cache:6379/0",
        "KEY_HASH_SECRET": secret,
        "AUDIT_SIGNING_KEY": secret[::-1],
        "TRUSTED_PROXIES": "10.0.0.0/8,192.0.2.7",
    }
    done = run("config", "--config", file, **variables)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.decode().splitlines())
    assert lines["server.backlog"].split(maxsplit=1) == ["2048", f"file {file}:1"]
    assert lines["cache.ttl"].split(maxsplit=1) == ["5m", "environment CACHE_TTL"]
    assert lines["server.port"].split() == ["8080", "default"]
    assert lines["database.url"].split() == ["-", "default"]
    assert lines["auth.key_hash_secret"].split(maxsplit=1) == ["***", "environment KEY_HASH_SECRET"]
    assert lines["server.trusted_proxies"].startswith("10.0.0.0/8, 192.0.2.7/32  ")
    listed = run("config", "--config", file, "--json", **variables)
    assert b"hunter2" not in done.stdout + done.stderr + listed.stdout + listed.stderr
    as_json = json.loads(listed.stdout)
    assert as_json["config_file"] == str(file)
    values = {entry["name"]: entry["value"] for entry in as_json["settings"]}
    assert values.keys() == lines.keys()
    assert (values["cache.ttl"], values["database.url"]) == ("5m", None)
    assert (values["audit.signing_key"], values["limits.default_tier"]) == ("***", "standard")


def test_a_secret_that_is_refused_is_not_repeated() -> None:
    done = run("config", KEY_HASH_SECRET="hunter2", AUDIT_SIGNING_KEY="hunter2\N{SNOWMAN}" * 8)
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.count(b"32 printable ASCII characters or more") == 2
    assert b"hunter2" not in done.stderr


def served(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[Any]:
    """Put a server in place that keeps what it is given, or fails."""
    module, given = types.ModuleType("app.server"), []

    class StartRefused(Exception):
        pass

    def start(loaded: settings.Loaded) -> None:
        given.append(loaded)
        if error is not None:
            raise StartRefused(*error.args)

    module.StartRefused, module.run = StartRefused, start  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "app.server", module)
    return given


def test_serve_hands_its_options_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = served(monkeypatch, None)
    options = ["--port", "9001", "--workers", "2", "--data-dir", tmp_path, "--log-level", "debug", "--host", "::1"]
    assert call("serve", *options).exit_code == 0
    server = given[0].settings.server
    assert (server.host, server.port, server.workers) == ("::1", 9001, 2)
    assert given[0].settings.database.data_dir == tmp_path
    assert given[0].origins["logging.level"].origin == "option --log-level"


def test_a_service_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, Exception("port 8080 is in use; give another with --port"))
    done = call("serve")
    assert (done.exit_code, done.stderr) == (4, "kyb: port 8080 is in use; give another with --port\n")


# What people see


def as_on_a_terminal(*arguments: object, width: int = 80, **variables: str) -> str:
    """What the command writes to a terminal of this width."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    env = environment(COLUMNS=str(width), TERM="xterm-256color", **variables)
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=-3, stdout=theirs, stderr=theirs, cwd=ROOT, env=env
    )
    os.close(theirs)
    written = b""
    try:
        while block := os.read(ours, 65536):
            written += block
    except OSError:  # the other side was closed
        pass
    os.close(ours)
    assert process.wait(30) == 0
    return written.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize(
    "arguments",
    [["score", PORTFOLIO], ["score", EXAMPLES[0]], ["score", EXAMPLES[0], "--explain", "full"], ["model", "show"]],
)
def test_no_line_is_wider_than_the_terminal(arguments: list[object], width: int) -> None:
    lines = call(*arguments, COLUMNS=str(width)).stdout.splitlines()
    assert max(map(len, lines)) <= width


def test_a_terminal_gets_colours_unless_it_asks_for_none() -> None:
    assert ESCAPE in as_on_a_terminal("score", EXAMPLES[0])
    plain = as_on_a_terminal("score", EXAMPLES[0], NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", plain)
    assert "medium" in plain


def test_nothing_but_a_terminal_gets_colours(tmp_path: Path) -> None:
    output = tmp_path / "table"
    assert run("score", PORTFOLIO, "-o", output).returncode == 0
    assert ESCAPE not in output.read_text()
    assert ESCAPE.encode() not in run("score", EXAMPLES[0]).stdout


def test_names_cannot_write_to_the_terminal() -> None:
    profile = {"business": {"name": "A\x1b[2Jc\x07me\n[red]x", "jurisdiction": "DE", "id": "\x1b]0;x\x07"}}
    rows = json.dumps(profile) + "\n" + json.dumps({"business": {"\x1b[2J": 1}})
    for form in ("ndjson", "json"):
        done = call("score", "-", "--format", form, stdin=rows if form == "ndjson" else json.dumps(profile))
        assert ESCAPE not in done.stdout + done.stderr
        assert "[red]x" in done.stdout


def test_an_ascii_terminal_is_enough() -> None:
    done = run("score", EXAMPLES[0], PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0
    assert done.stdout.isascii()


def test_a_level_that_rules_raised_is_told_from_the_points() -> None:
    assert "The points alone would be low; the rules below raise the level." in call("score", HEALTHY).stdout


def test_the_table_sums_up() -> None:
    done = run("score", PORTFOLIO, COLUMNS="120")
    assert done.stdout.decode().count("line ") == 1
    assert b"Nothing was screened against watchlists." in done.stdout
    assert re.fullmatch(rb"6 scored \(.*\); 0 refused\n", done.stderr)


def test_a_bar_shows_how_far_a_long_input_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for total, after_s, shown in ((1000, 0.0, True), (None, 0.0, True), (1000, 3600.0, False)):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        with meter.Meter(total, shown=True, after_s=after_s) as bar:
            bar.update(500, 1234)
            bar.update(1000, 2468)
        assert ("2,468 profiles" in terminal.getvalue()) is shown
