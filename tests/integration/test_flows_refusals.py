"""Bad input on the command line: one sentence, an exit code, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import cli
from warehouse import Warehouse

ITEMS = '{"item_id": "a", "title": "Alpha"}\n{"item_id": "b", "title": "Beta"}\n'
ROWS = "user_id,item_id\nu,a\nu,b\nv,a\nv,b\nw,a\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "items.jsonl").write_text(ITEMS, encoding="utf-8")
    (tmp_path / "rows.csv").write_text(ROWS, encoding="utf-8")
    toml = '[source]\nitems = "items.jsonl"\ninteractions = "rows.csv"\n[warehouse]\nroot = "w"\n'
    (tmp_path / "semalign.toml").write_text(toml, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and last stderr line."""
    capsys.readouterr()
    code = cli.run(list(arguments))
    out, err = capsys.readouterr()
    assert out == ""
    return code, err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["source.items=nowhere.parquet"], "nowhere.parquet"),
        (["source.columns.interactions.user_id=reader"], "reader"),
        (["split.kind=given"], "split"),
        (["split.kind=given", "split.column=item_id"], "'a'"),
        (["source.min_rating=3"], "rating"),
        (["profiles.domain=nonsense"], "nonsense"),
        (["profiles.attributes=['salary']"], "salary"),
        (["profiles.engine.name=telepathy"], "telepathy"),
        (["embeddings.name=telepathy"], "telepathy"),
        (["model.name=telepathy"], "telepathy"),
        (["model.betta=1"], "betta"),
        (["training.epoch=1"], "epochs"),
        (["evaluation.protocol=mine"], "protocol"),
        (["splitt.seed=1"], "split"),
    ],
    ids=lambda value: str(value),
)
def test_what_the_user_wrote_wrong_is_exit_code_2_and_named(folder, capsys, overrides, words):
    arguments = ["train"] + [word for text in overrides for word in ("--set", text)]
    code, last = refused(capsys, *arguments)
    assert code == 2 and words in last and "semalign train" in last


@pytest.mark.parametrize("kind", ["interactions", "items", "users"])
def test_a_missing_or_empty_source_is_blamed_on_its_own_setting(folder, capsys, kind):
    (folder / "empty.csv").write_bytes(b"")
    for name in ("nowhere.csv", "empty.csv"):
        code, last = refused(capsys, "ingest", "--set", f"source.{kind}={name}")
        assert code == 2 and f"source.{kind}: " in last and name in last


def test_a_secret_on_the_command_line_is_not_printed_again(folder, capsys):
    code, last = refused(capsys, "run", "--set", "profiles.engine.api_key=sk-CANARY", "--set", "name=CANARY")
    assert code == 2 and "looks like a secret" in last and "CANARY" not in last
    address = "profiles.engine={name='openai',model='m',base_url='http://user:CANARY@evil.example/v1'}"
    code, last = refused(capsys, "profile", "--set", address)
    assert code == 2 and "base_url" in last and "CANARY" not in last


def test_a_warehouse_that_cannot_be_there_is_refused_in_a_sentence(folder, capsys):
    (folder / "file").write_text("x", encoding="utf-8")
    for root in ("file", "file/below", "/proc/none/w"):
        code, last = refused(capsys, "ingest", "--root", root)
        assert code == 2 and "cannot hold the warehouse" in last and "--root" in last
    for words in (["plan"], ["status"], ["sql", "SELECT 1"], ["compare", "--models", "ease"]):
        code, last = refused(capsys, *words, "--root", "file")
        assert code == 2 and "cannot hold the warehouse" in last


def test_engine_and_encoder_are_looked_at_before_anything_is_read(folder, capsys):
    (folder / "encoder").mkdir()
    (folder / "encoder" / "modeling.py").write_text("", encoding="utf-8")
    paid = ["--set", "profiles.engine={name='openai',model='gpt-4.1-mini'}"]
    for words in (["embed", "--set", "embeddings.model=./encoder"], ["profile", *paid], ["run", *paid]):
        assert refused(capsys, *words)[0] == 2
        assert not list((folder / "w").glob("snapshots/*"))


def test_a_limit_made_tighter_is_looked_at_again(folder, capsys):
    (folder / "rows.csv").write_text(ROWS + "w,nothing\n", encoding="utf-8")
    assert cli.run(["ingest", "--set", "source.max_quarantined_share=0.5"]) == 3
    code, last = refused(capsys, "ingest")
    assert code == 4 and "unknown_item 1" in last and "of 8 rows" in last


def test_another_seed_screens_other_users_of_a_given_split(folder, capsys):
    parts = ["train", "train", "train", "valid", "test"]
    rows = [f"u{user},i{step},{part}" for user in range(12) for step, part in enumerate(parts)]
    (folder / "rows.csv").write_text("\n".join(["user_id,item_id,split", *rows]) + "\n", encoding="utf-8")
    items = "".join(f'{{"item_id": "i{n}", "title": "Item {n}"}}\n' for n in range(5))
    (folder / "items.jsonl").write_text(items, encoding="utf-8")
    screen = ["--set", "split.kind=given", "--set", "source.screen=0.5"]
    seen = []
    for seed in (0, 1):
        capsys.readouterr()
        cli.run(["ingest", "--json", *screen, "--set", f"split.seed={seed}"])
        seen.append(json.loads(capsys.readouterr().out)["stages"][0]["computed"])
    assert seen == [True, True]


def test_an_empty_file_a_wrong_encoding_and_a_bad_parquet_are_told_apart(folder, capsys):
    (folder / "rows.csv").write_bytes(b"")
    assert refused(capsys, "ingest")[0] == 2
    (folder / "rows.csv").write_bytes(b"user_id,item_id\n\xff\xfe,a\n")
    code, last = refused(capsys, "ingest")
    assert code == 2 and "UTF-8" in last
    (folder / "rows.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert refused(capsys, "ingest", "--set", "source.interactions=rows.parquet")[0] == 6
    assert not (folder / "w" / "CURRENT").exists()


def test_too_many_bad_rows_stop_the_run(folder, capsys):
    (folder / "rows.csv").write_text(ROWS + "w,nothing\n", encoding="utf-8")
    code, last = refused(capsys, "ingest")
    assert code == 4 and "unknown_item 1" in last and "source.max_quarantined_share" in last


def test_a_few_bad_rows_are_set_aside_and_counted(folder, capsys):
    (folder / "rows.csv").write_text(ROWS + "w,nothing\n", encoding="utf-8")
    capsys.readouterr()
    code = cli.run(["ingest", "--json", "--set", "source.max_quarantined_share=0.5"])
    out, err = capsys.readouterr()
    assert code == 3 and json.loads(out)["quarantined"] == 1
    assert "1 rows are in quarantine → semalign quarantine list" in err.strip().splitlines()[-1]


def test_an_unknown_stage_names_the_known_ones(folder, capsys):
    code, last = refused(capsys, "run", "--until", "lunch")
    assert code == 2 and "recommend" in last


def test_nothing_published_is_said_plainly(folder, capsys):
    for words in (["status"], ["sql", "SELECT 1"], ["similar", "a"], ["report"], ["verify"]):
        code, last = refused(capsys, *words)
        assert code == 2 and "nothing is published" in last


def test_bad_sql_names_the_tables(folder, capsys):
    assert cli.run(["ingest"]) == 0
    code, last = refused(capsys, "sql", "SELECT * FROM wares")
    assert code == 2 and "interactions" in last
    code, _ = refused(capsys, "sql", "COPY items TO 'x.csv'")
    assert code == 2 and not (folder / "x.csv").exists()


def test_similar_needs_an_item_or_a_text(folder, capsys):
    assert cli.run(["ingest"]) == 0
    for words in (["similar"], ["similar", "a", "--text", "b"]):
        code, last = refused(capsys, *words)
        assert code == 2 and "expected an item id or --text WORDS" in last and "semalign.toml" not in last
    code, last = refused(capsys, "similar", "zz")
    assert code == 2 and "zz" in last


def test_an_unknown_option_is_exit_code_2(folder, capsys):
    assert refused(capsys, "run", "--fast")[0] == 2
    assert refused(capsys, "dance")[0] == 2


def test_init_writes_settings_that_plan_can_read(folder, capsys):
    (folder / "log.csv").write_text("reader_id,book_id,stars\nu,a,5\nv,b,4\nu,b,4\nv,a,3\n", encoding="utf-8")
    assert cli.run(["init", "new", "--items", "items.jsonl", "--interactions", "log.csv"]) == 0
    text = (folder / "new" / "semalign.toml").read_text(encoding="utf-8")
    assert 'user_id = "reader_id"' in text and 'rating = "stars"' in text
    assert cli.run(["ingest", "--config", "new"]) == 0
    assert refused(capsys, "init", "new", "--items", "items.jsonl", "--interactions", "log.csv")[0] == 2


def test_init_uses_the_split_that_is_there(folder, capsys):
    rows = "user_id,item_id,split\nu,a,train\nv,a,train\nu,b,test\nv,b,valid\n"
    (folder / "log.csv").write_text(rows, encoding="utf-8")
    assert cli.run(["init", "new", "--items", "items.jsonl", "--interactions", "log.csv"]) == 0
    assert cli.run(["ingest", "--config", "new"]) == 0
    split = Warehouse(folder / "new" / "var" / "warehouse").current().stages["ingest"]["summary"]["split"]  # type: ignore[union-attr]
    assert split == "given column split"
    (folder / "log.csv").write_text(rows.replace("valid", "dev"), encoding="utf-8")
    assert cli.run(["init", "new", "--force", "--items", "items.jsonl", "--interactions", "log.csv"]) == 0
    text = (folder / "new" / "semalign.toml").read_text(encoding="utf-8")
    assert '\nkind = "random"' in text and '# column = "split"' in text


def test_init_names_the_columns_when_it_cannot_guess(folder, capsys):
    (folder / "odd.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    code, last = refused(capsys, "init", "new", "--items", "items.jsonl", "--interactions", "odd.csv")
    assert code == 2 and "user_id" in last and "x, y" in last and not (folder / "new").exists()


def test_doctor_reports_every_fault_at_once(folder, capsys):
    capsys.readouterr()
    code = cli.run(["doctor", "--json", "--set", "source.items=nowhere.csv", "--set", "profiles.domain=nonsense"])
    bad = [check["what"] for check in json.loads(capsys.readouterr().out)["checks"] if not check["ok"]]
    assert code == 2 and bad == ["sources", "prompts"]


def test_a_second_run_waits_for_nobody(folder, capsys):
    script = (
        "import sys, time; from warehouse import Warehouse\n"
        "with Warehouse(sys.argv[1]).lock(command='run'): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(folder / "w")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
        started = time.monotonic()
        code, last = refused(capsys, "ingest")
        assert code == 5 and str(holder.pid) in last and time.monotonic() - started < 2
    finally:
        holder.kill()
        holder.wait()
    assert cli.run(["ingest"]) == 0


def test_files_are_readable_by_their_owner_alone(folder):
    assert cli.run(["profile"]) == 0
    modes = [os.stat(path).st_mode & 0o077 for path in Path(folder / "w").rglob("*")]
    assert modes and set(modes) == {0}
