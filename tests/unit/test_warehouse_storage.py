"""Durable files, names and errors of the warehouse, one rule a test."""

import os
import pickle
import stat
import subprocess
import sys

import pytest

import warehouse
from warehouse import (
    AlreadyAnsweredError,
    CorruptFileError,
    IdentifierError,
    LockHeldError,
    MissingColumnError,
    MissingFileError,
    UnsafePathError,
    Warehouse,
    WarehouseError,
    WarehouseRootError,
    atomic_write,
    canonical_json,
    content_key,
    make_directory,
    sql_identifier,
)
from warehouse import errors as refusals
from warehouse.storage import install_tree


def test_an_atomic_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path):
    target = tmp_path / "CURRENT"
    atomic_write(target, b"first")
    atomic_write(target, b"second")
    assert target.read_bytes() == b"second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["CURRENT"]


def test_a_failed_atomic_write_keeps_the_old_content(tmp_path, monkeypatch):
    target = tmp_path / "CURRENT"
    atomic_write(target, b"first")

    def refuse(source, destination):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        atomic_write(target, b"second")
    assert target.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["CURRENT"]


def test_files_and_directories_are_for_their_owner_alone(tmp_path):
    folder = make_directory(tmp_path / "a" / "b")
    atomic_write(folder / "x", b"")
    assert stat.S_IMODE((folder / "x").stat().st_mode) == 0o600
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)} == {0o700}


def test_canonical_json_is_one_text_per_value():
    assert canonical_json({"b": 1, "a": [True, None, "é"]}) == '{"a":[true,null,"é"],"b":1}'
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


@pytest.mark.parametrize("name", ["", "Items", "1items", "items-2", "items;", 'items"', "ïtems", "a" * 64, "items\n"])
def test_names_that_could_mean_more_than_a_table_are_refused(name):
    with pytest.raises(IdentifierError):
        sql_identifier(name)


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "a\\b", "a\0b", "CON", "nul.txt", "～", "a*", "x" * 129, "-rf", "é"]
)
def test_names_that_could_lead_out_of_the_root_are_refused(tmp_path, name):
    with pytest.raises(UnsafePathError):
        Warehouse(tmp_path).inside("models", name)


def test_a_plain_name_leads_inside(tmp_path):
    assert Warehouse(tmp_path).inside("models", "3f9a.partial") == tmp_path / "models" / "3f9a.partial"


def test_a_root_that_cannot_be_a_folder_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for root, reason in [
        (tmp_path / "file", "file is not a folder"),
        (tmp_path / "file" / "below" / "it", "file is not a folder"),
        (tmp_path / "loop", "loop"),
        ("~nobody-of-that-name/w", "home directory"),
        ("a\0b", "null"),
    ]:
        with pytest.raises(WarehouseRootError, match=reason) as caught:
            Warehouse(root)
        assert caught.value.exit_code == 2
        assert "expected a folder you may write in" in str(caught.value)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc, where nobody makes folders")
def test_a_root_that_cannot_be_made_is_refused_when_it_is_to_be_written():
    lock = Warehouse("/proc/nothing/w").lock()
    with pytest.raises(WarehouseRootError, match="'/proc/nothing/w' cannot hold the warehouse: ") as caught, lock:
        pytest.fail("a lock was taken in /proc")
    assert caught.value.exit_code == 2


def test_a_root_nobody_may_write_is_refused_before_it_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(WarehouseRootError, match="may not be written by this user"):
        Warehouse(tmp_path / "w")
    assert Warehouse(tmp_path).current() is None


def test_an_installed_directory_is_never_replaced(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError):
        install_tree(tmp_path / "new", tmp_path / "old")
    install_tree(tmp_path / "new", tmp_path / "installed")
    assert (tmp_path / "installed").is_dir()


def test_every_error_survives_a_pickle_and_says_its_sentence():
    examples = [
        LockHeldError("/w/LOCK", 7, "run", "2026-01-01"),
        CorruptFileError("/w/x.parquet", "sha256 is 00…"),
        MissingFileError("items.csv", "items"),
        MissingColumnError("item_id", ["id", "name"], "items.csv", "items"),
        MissingColumnError("id", ["name"], "items.csv", "items", "item_id"),
        WarehouseRootError("/w", "/w is not a folder"),
        AlreadyAnsweredError("ab12"),
    ]
    for error in examples:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301  # bytes of our own, made one call earlier
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.__dict__ == error.__dict__


def test_errors_can_be_caught_as_the_builtins_a_caller_expects():
    assert issubclass(MissingFileError, FileNotFoundError)
    assert issubclass(LockHeldError, BlockingIOError)
    assert issubclass(CorruptFileError, ValueError)
    assert issubclass(MissingColumnError, LookupError)


def test_every_error_of_the_package_has_an_exit_code_and_is_exported():
    kinds = [kind for kind in vars(refusals).values() if isinstance(kind, type) and issubclass(kind, WarehouseError)]
    assert {kind.exit_code for kind in kinds} <= {1, 2, 4, 5, 6}
    assert {kind.__name__ for kind in kinds} <= set(warehouse.__all__)


def test_every_exported_name_exists_and_unknown_ones_do_not():
    for name in warehouse.__all__:
        assert getattr(warehouse, name) is not None
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = warehouse.nonesuch


def test_importing_the_package_imports_neither_duckdb_nor_pyarrow():
    code = "import sys, warehouse; print({'duckdb', 'pyarrow', 'numpy', 'sqlite3'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_every_error_can_be_made_before_it_is_told_anything():
    import warehouse.source_errors as of_sources

    kinds = {kind for module in (refusals, of_sources) for kind in vars(module).values() if isinstance(kind, type)}
    for kind in kinds:
        if issubclass(kind, WarehouseError):  # a worker of Dask sends them home so
            assert isinstance(kind.__new__(kind), kind)
