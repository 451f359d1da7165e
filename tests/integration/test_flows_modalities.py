"""Named sets of vectors on their way from settings, files and imports to the models that read them, and to no other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.many_eyed import in_the_catalogue
from servers.training import train_here

import providers
from benchmarks.stand_ins import StandInEncoder
from flows import cli
from rec_models import Bundle
from warehouse import Snapshot, Warehouse

N_ITEMS, N_USERS, WIDTH = 12, 8, 5
ITEMS = [f"i{n:02d}" for n in range(N_ITEMS)]
LOOKS = np.random.default_rng(11).normal(size=(N_ITEMS, WIDTH)).astype(np.float32)
LOOKS /= np.linalg.norm(LOOKS, axis=1, keepdims=True)


class Letters(StandInEncoder):
    """Unit vectors from the hash of a text; `asked` is every text that was embedded."""

    asked: list[str] = []  # noqa: RUF012
    model, dtype, dim = "letters", "float32", 8

    def __init__(self, settings: dict[str, Any]) -> None:
        self.short_name = settings.get("name", "plain")
        self.key = hashlib.sha256(self.short_name.encode()).hexdigest()

    def encode(self, texts, on_progress=None):
        Letters.asked += texts
        return np.stack([unit(text) for text in texts])


def unit(text: str) -> np.ndarray:
    drawn = np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)).normal(size=8)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Twelve items, the last without a blurb, eight users with a given split, and vectors of the items' looks."""
    monkeypatch.setattr(providers, "parse_encoder", Letters)
    monkeypatch.setattr(Letters, "asked", [])
    train_here(monkeypatch)
    in_the_catalogue(monkeypatch)
    monkeypatch.chdir(tmp_path)
    rows = [{"item_id": name, "title": f"Game {name}", "blurb": f"Calm, part {name}."} for name in ITEMS]
    rows[-1] = {"item_id": ITEMS[-1], "title": "The last one"}
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lines = ["user_id,item_id,split"]
    for user in range(N_USERS):
        for step, part in enumerate(["train", "train", "train", "valid", "test"]):
            lines.append(f"u{user},{ITEMS[(user * 5 + step) % N_ITEMS]},{part}")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings(tmp_path)
    save_looks(tmp_path, LOOKS)
    return tmp_path


def settings(folder: Path, sets: str = "", embeddings: str = 'name = "plain"', profiles: str = "") -> None:
    (folder / "semalign.toml").write_text(
        f'[source]\nitems = "items.jsonl"\ninteractions = "rows.csv"\n[split]\nkind = "given"\n[profiles]\n{profiles}\n'
        f'attributes = ["title"]\n[embeddings]\n{embeddings}\n{sets}\n[warehouse]\nroot = "w"\n',
        encoding="utf-8",
    )


def save_looks(folder: Path, looks: np.ndarray, ids: list[str] | None = None, name: str = "looks") -> None:
    np.save(folder / f"{name}.npy", looks)
    (folder / f"{name}.ids.json").write_text(json.dumps(ids or ITEMS[: len(looks)]), encoding="utf-8")


def command(capsys, *words: str, code: int = 0) -> tuple[dict[str, Any], str]:
    """JSON document and last line of a command that ends with the code."""
    capsys.readouterr()
    got = cli.run([*words, "--json"])
    out, err = capsys.readouterr()
    assert got == code, err
    return json.loads(out) if out else {}, err.strip().splitlines()[-1]


def compare(capsys, *models: str) -> dict[str, Any]:
    return command(capsys, "compare", "--models", ",".join(models))[0]


def imported(capsys, *words: str) -> dict[str, Any]:
    return command(capsys, "import", "looks.npy", "--as", "looks", "--kind", "item", *words)[0]


def current(folder: Path) -> Snapshot:
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    return snapshot


def bundle(folder: Path, document: dict[str, Any], label: str) -> Bundle:
    [score] = [score for score in document["scores"] if score["label"] == label]
    return Bundle.open(folder / "w" / "models" / score["model_ids"][0])


def ids_of(document: dict[str, Any]) -> dict[str, str]:
    return {score["label"]: score["model_ids"][0] for score in document["scores"]}


BOTH = "many_eyed@modalities=profiles+looks"
ALONE = "many_eyed@modalities=looks"


def test_a_set_of_attribute_texts_reaches_the_model_that_names_it_in_index_order(folder, capsys):
    settings(folder, '[encoders.blurbs]\nname = "plain"\ntexts = ["blurb"]\n')
    found = compare(capsys, "many_eyed@modalities=profiles+blurbs", "many_eyed", "popularity")
    read = bundle(folder, found, "many_eyed@modalities=profiles+blurbs")
    inputs = read.inputs()
    assert set(inputs.semantic) == {"items", "users", "items_blurbs", "users_blurbs"}
    for row, name in enumerate(ITEMS[:-1]):
        np.testing.assert_allclose(inputs.semantic["items"].vectors[row], unit(f"Game {name}."), atol=1e-6)
        np.testing.assert_allclose(inputs.semantic["items_blurbs"].vectors[row], unit(f"Calm, part {name}."), atol=1e-6)
    assert inputs.semantic["items_blurbs"].present.tolist() == [True] * (N_ITEMS - 1) + [False]
    assert not inputs.semantic["items_blurbs"].vectors[-1].any()
    assert inputs.semantic["users_blurbs"].pooled
    about = read.config["semantic"]
    assert about["items_blurbs"]["source"] == "columns blurb" and about["items_blurbs"]["missing"] == 1
    assert about["users_blurbs"]["source"] == "pooled" and about["items"]["source"] == "attributes"
    told = {score["label"]: score["provenance"] for score in found["scores"]}
    assert told["many_eyed@modalities=profiles+blurbs"] == {
        "vectors blurbs": f"columns blurb, 1 of {N_ITEMS} items without"
    }
    assert told["many_eyed"] == {} and set(bundle(folder, found, "many_eyed").inputs().semantic) == {"items", "users"}


def test_imported_vectors_are_joined_by_id_users_pooled_and_missing_rows_masked(folder, capsys):
    compare(capsys, "popularity")
    order = [7, 2, 9, 0, 4, 1, 10, 5, 3, 8]
    save_looks(folder, 3 * LOOKS[order], [ITEMS[place] for place in order])
    assert imported(capsys)["missing"] == 2
    found = compare(capsys, ALONE)
    assert set(bundle(folder, found, ALONE).inputs().semantic) == {"items_looks", "users_looks"}
    inputs = bundle(folder, found, ALONE).inputs()
    items, users = inputs.semantic["items_looks"], inputs.semantic["users_looks"]
    present = [name in {ITEMS[place] for place in order} for name in ITEMS]
    assert items.present.tolist() == present and users.pooled
    np.testing.assert_allclose(items.vectors.numpy(), LOOKS * np.array(present)[:, None], atol=1e-6)
    for user in range(N_USERS):
        own = inputs.train.indices[inputs.train.indptr[user] : inputs.train.indptr[user + 1]]
        taken = [place for place in own if present[place]]
        mean = LOOKS[taken].sum(axis=0)
        np.testing.assert_allclose(users.vectors[user], mean / np.linalg.norm(mean), atol=1e-5)
    [score] = found["scores"]
    assert score["provenance"] == {"vectors looks": f"import (looks.npy), 2 of {N_ITEMS} items without"}


def test_only_models_that_read_a_modality_are_trained_again_when_its_vectors_change(folder, capsys):
    compare(capsys, "popularity")
    imported(capsys)
    first = compare(capsys, BOTH, "many_eyed", "popularity")
    assert compare(capsys, BOTH, "many_eyed", "popularity")["trained"] == 0
    save_looks(folder, LOOKS[::-1].copy())
    imported(capsys)
    second = compare(capsys, BOTH, "many_eyed", "popularity")
    before, after = ids_of(first), ids_of(second)
    assert second["trained"] == 1
    assert before[BOTH] != after[BOTH] and before["many_eyed"] == after["many_eyed"]
    # what the models made of their vectors is kept, each under the vectors it was made of, until nobody wants it
    derived = folder / "w" / "matrices" / "derived"
    assert len(list(derived.glob("*.safetensors"))) == 3
    np.testing.assert_allclose(
        bundle(folder, second, BOTH).inputs().semantic["items_looks"].vectors.numpy(), LOOKS[::-1], atol=1e-6
    )
    assert second["metrics"][BOTH] != first["metrics"][BOTH]
    command(capsys, "gc", "--days", "0")
    assert not list(derived.iterdir())


def test_a_stage_found_in_an_older_version_takes_the_vectors_imported_since(folder, capsys):
    compare(capsys, "many_eyed")
    settings(folder, embeddings='name = "other"')
    compare(capsys, "many_eyed")
    assert current(folder).default_embeddings == "embeddings_plain"  # a comparison leaves what is published alone
    imported(capsys)
    settings(folder)
    command(capsys, "embed")
    settings(folder, embeddings='name = "other"')
    command(capsys, "embed")
    save_looks(folder, LOOKS[::-1].copy())
    imported(capsys)
    settings(folder)
    found = compare(capsys, BOTH)
    np.testing.assert_allclose(
        bundle(folder, found, BOTH).inputs().semantic["items_looks"].vectors.numpy(), LOOKS[::-1], atol=1e-6
    )
    assert compare(capsys, BOTH)["trained"] == 0


def test_a_modality_that_no_set_has_is_refused_before_anything_is_embedded(folder, capsys):
    settings(folder, '[encoders.blurbs]\nname = "plain"\ntexts = ["blurb"]\n')
    _, last = command(capsys, "compare", "--models", BOTH, code=2)
    assert "reads the modality `looks`" in last and "known: profiles, blurbs" in last
    assert "[encoders.looks]" in last and "semalign import FILE --as looks --kind item" in last
    assert Letters.asked == [] and not (folder / "w" / "CURRENT").exists()


def test_too_few_vectors_of_a_modality_are_refused_by_name(folder, capsys):
    compare(capsys, "popularity")
    save_looks(folder, LOOKS[:5])
    imported(capsys)
    _, last = command(capsys, "compare", "--models", ALONE, code=4)
    assert f"only 5 of {N_ITEMS} items have a vector in `looks`" in last and "profiles.min_coverage" in last
    settings(folder, profiles="min_coverage = 0.4")
    assert compare(capsys, ALONE)["trained"] == 1


def test_a_set_never_overwrites_what_was_imported_nor_an_import_a_set(folder, capsys):
    compare(capsys, "popularity")
    imported(capsys)
    settings(folder, '[encoders.looks]\nname = "plain"\ntexts = ["blurb"]\n')
    _, last = command(capsys, "embed", code=2)
    assert "embeddings_looks holds imported vectors" in last and "give this set another name" in last
    settings(folder, '[encoders.seen]\nname = "vectors"\nitems = "looks.npy"\n')
    command(capsys, "embed")
    _, last = command(capsys, "import", "looks.npy", "--as", "seen", "--kind", "item", code=2)
    assert "of a set of the settings" in last


def test_after_forgetting_a_user_imported_vectors_are_still_read_and_the_user_is_in_none(folder, capsys):
    compare(capsys, "popularity")
    imported(capsys)
    users = [f"u{user}" for user in range(N_USERS)]
    save_looks(folder, LOOKS[:N_USERS], users, name="tastes")
    command(capsys, "import", "tastes.npy", "--as", "looks", "--kind", "user")
    found = compare(capsys, ALONE)
    np.testing.assert_allclose(
        bundle(folder, found, ALONE).inputs().semantic["users_looks"].vectors.numpy(), LOOKS[:N_USERS], atol=1e-6
    )
    command(capsys, "forget-user", "u3", "--yes")
    assert not (folder / "w" / "matrices").exists()
    found = compare(capsys, ALONE)
    read = bundle(folder, found, ALONE)
    assert found["trained"] == 1 and read.config["n_users"] == N_USERS - 1
    vectors = read.inputs().semantic["users_looks"].vectors.numpy()
    np.testing.assert_allclose(vectors, np.delete(LOOKS[:N_USERS], 3, axis=0), atol=1e-6)
    assert read.config["semantic"]["items_looks"]["source"] == "import"
    command(capsys, "gc", "--keep", "1", "--days", "0")
    command(capsys, "verify", "--full")
    assert compare(capsys, ALONE)["trained"] == 0


def test_an_item_that_went_leaves_its_imported_vector_behind(folder, capsys):
    compare(capsys, "popularity")
    imported(capsys)
    lines = (folder / "items.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "items.jsonl").write_text("".join(lines[:4] + lines[5:]), encoding="utf-8")
    kept = [row for row in (folder / "rows.csv").read_text(encoding="utf-8").splitlines() if ITEMS[4] not in row]
    (folder / "rows.csv").write_text("\n".join(kept) + "\n", encoding="utf-8")
    command(capsys, "embed")
    found = compare(capsys, ALONE)
    items = bundle(folder, found, ALONE).inputs().semantic["items_looks"]
    np.testing.assert_allclose(items.vectors.numpy(), np.delete(LOOKS, 4, axis=0), atol=1e-6)


def test_a_set_read_from_files_needs_no_import_and_follows_its_file(folder, capsys):
    order = np.random.default_rng(2).permutation(N_ITEMS)
    np.save(folder / "looks.npy", LOOKS[order])
    lines = [f"{row}\t{ITEMS[place]}\n" for row, place in enumerate(order)]
    (folder / "order.csv").write_text("row\titem_id\n" + "".join(sorted(lines, reverse=True)), encoding="utf-8")
    sets = '[encoders.looks]\nname = "vectors"\nitems = "looks.npy"\n'
    settings(folder, sets + 'item_ids = "order.csv"\n')
    found = compare(capsys, BOTH, "many_eyed")
    inputs = bundle(folder, found, BOTH).inputs()
    np.testing.assert_array_equal(inputs.semantic["items_looks"].vectors.numpy(), LOOKS)
    assert inputs.semantic["users_looks"].pooled and found["source"] == "attributes"
    assert found["scores"][0]["provenance"] == {"vectors looks": "vectors (looks.npy)"}
    save_looks(folder, LOOKS)  # other bytes, the same vectors
    settings(folder, sets)
    assert compare(capsys, BOTH, "many_eyed")["trained"] == 0
    np.save(folder / "looks.npy", LOOKS[::-1].copy())
    changed = compare(capsys, BOTH, "many_eyed")
    assert changed["trained"] == 1 and ids_of(changed)["many_eyed"] == ids_of(found)["many_eyed"]


def test_vectors_from_files_stand_in_for_the_profiles_themselves(folder, capsys):
    save_looks(folder, LOOKS)
    settings(folder, embeddings='name = "vectors"\nitems = "looks.npy"')
    found = compare(capsys, "many_eyed", "popularity")
    assert found["source"] == "vectors (looks.npy)" and Letters.asked == []
    inputs = bundle(folder, found, "many_eyed").inputs()
    np.testing.assert_allclose(inputs.semantic["items"].vectors.numpy(), LOOKS, atol=1e-6)
    assert inputs.semantic["users"].pooled and inputs.semantic["users"].present.all()
    near, _ = command(capsys, "similar", ITEMS[0])
    closeness = LOOKS @ LOOKS[0]
    assert near["similar"][0]["item_id"] == ITEMS[int(np.argsort(-closeness)[1])]
    _, last = command(capsys, "similar", "--text", "calm", code=2)
    assert "come without an encoder" in last
    document, _ = command(capsys, "export", "embeddings", "--kind", "item", "--output", "out.npy")
    assert document["rows"] == N_ITEMS
    np.testing.assert_allclose(np.load(folder / "out.npy"), LOOKS, atol=1e-6)
    estimate, _ = command(capsys, "plan")
    assert "looks.npy" in json.dumps(estimate)


@pytest.mark.parametrize(
    ("sets", "code", "sentence"),
    [
        ('name = "vectors"', 2, "`encoders.x.items`"),
        (
            'name = "vectors"\nitems = "looks.npy"\n[encoders.profiles]\nname = "plain"',
            2,
            "models call the default set so",
        ),
        ('name = "vectors"\nitems = "absent.npy"', 2, "there is no such file"),
        ('name = "vectors"\nitems = "looks.npy"\ntexts = ["blurb"]', 2, "made of no texts"),
        ('name = "vectors"\nitems = "looks.npy"\nimages = 1', 2, "vectors from files take: name, items"),
        ('name = "vectors"\nitems = "looks.npy"\nitem_ids = "rows"', 4, "encoders.x.max_unknown"),
    ],
)
def test_a_set_of_files_that_cannot_be_is_refused(folder, capsys, sets, code, sentence):
    save_looks(folder, LOOKS)
    settings(folder, f"[encoders.x]\n{sets}\n")
    _, last = command(capsys, "embed", code=code)
    assert sentence in last and Letters.asked == []
