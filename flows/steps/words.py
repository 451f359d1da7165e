"""The words of items as sparse weights: counted once for each content, linked into the bundles that ask for them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.embedding_sets import PROFILE
from flows.errors import SettingValueError
from flows.settings import PlainMapping, WordSettings, digest
from flows.split_errors import EmptyVocabularyError
from flows.steps.evidence import profiles_of_items
from flows.steps.filters import text_of
from flows.steps.rows import sequence_hash, strings

if TYPE_CHECKING:
    from rec_models import TextFeatures, WordSource
    from warehouse import Snapshot, Warehouse

VERSION = 1
_SUMS = "sha256.json"


def word_source(
    warehouse: Warehouse, snapshot: Snapshot, item_ids: Sequence[str], settings: WordSettings, scratch: str
) -> WordSource:
    """The words of a snapshot's items in index order, from the cache or counted into it.

    Args:
        scratch: name of a folder of this run alone, under `staging`.

    Raises:
        SettingValueError: `words.texts` names no column of the items.
        EmptyVocabularyError: no word is left by the limits.
    """
    from rec_models import WordSource
    from warehouse import make_directory

    texts = item_texts(snapshot, item_ids, settings)
    identity = settings.model_dump(mode="json")
    key = digest("words", VERSION, identity, sequence_hash(item_ids), sequence_hash(texts))[:40]
    folder = warehouse.inside("words", key)
    if not _whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
        partial = make_directory(warehouse.inside("staging", scratch))
        _write(partial, weigh_words(texts, settings))
        make_directory(folder.parent)
        warehouse.install_directory(partial, folder)
    return WordSource(folder, {"source": _source(snapshot, settings), **identity})


def words_content(snapshot: Snapshot, words: PlainMapping) -> list[Any]:
    """What the words of a snapshot are counted in and how: two contents that differ may differ in words."""
    of_profiles = PROFILE in words["texts"]
    # columns of the items are named by the sources; profiles have a content of their own
    stage = snapshot.stages["profile"]["summary"]["content"] if of_profiles else None
    return [words, stage, snapshot.stages["ingest"]["key"] if set(words["texts"]) != {PROFILE} else None]


def item_texts(snapshot: Snapshot, item_ids: Sequence[str], settings: WordSettings) -> list[str]:
    """The texts of each item, a line each; empty for an item without any."""
    from warehouse import unpack_attributes

    columns = [name for name in settings.texts if name != PROFILE]
    known = snapshot.stages["ingest"]["summary"]["item_columns"]
    for name in columns:
        if name not in known:
            raise SettingValueError("words.texts", name, f"no column; known: {', '.join([PROFILE, *known])}")
    profiles = profiles_of_items(snapshot) if PROFILE in settings.texts else {}
    attributes: Mapping[str, Mapping[str, Any]] = {}
    if columns:
        rows = snapshot.read("items")
        attributes = dict(zip(strings(rows, "item_id"), unpack_attributes(rows), strict=True))
    return [
        text_of({**attributes.get(item_id, {}), PROFILE: profiles.get(item_id)}, settings.texts) for item_id in item_ids
    ]


def weigh_words(texts: Sequence[str], settings: WordSettings) -> TextFeatures:
    """tf-idf of the most frequent words, rows of unit length; an item without any of them has an empty row.

    Source: BANDVAE's preprocessing: lower case, no stop words, corpus frequency above 3, document frequency below 60 %,
    the 8,000 most frequent.
    Deviations: the paper leaves the form of tf-idf open; count * (ln((1 + items) / (1 + items with it)) + 1). Words of
    equal frequency are taken in alphabetical order.

    Raises:
        EmptyVocabularyError: no word is left.
    """
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    from rec_models import InteractionMatrix, TextFeatures

    counter = CountVectorizer(stop_words=None if settings.stop_words == "none" else settings.stop_words)
    try:
        counts = csr_array(counter.fit_transform(texts))
    except ValueError as error:  # not one word in all texts
        raise EmptyVocabularyError(len(texts), 0) from error
    words = counter.get_feature_names_out()
    total = np.asarray(counts.sum(axis=0)).ravel()
    spread = np.bincount(counts.indices, minlength=len(words))
    allowed = np.flatnonzero((total >= settings.min_count) & (spread < settings.max_share * len(texts)))
    if not len(allowed):
        raise EmptyVocabularyError(len(texts), len(words))
    chosen = np.sort(allowed[np.lexsort((allowed, -total[allowed]))][: settings.vocabulary])
    weighted = csr_array(TfidfTransformer().fit_transform(counts[:, chosen]))
    weighted.sort_indices()
    rows = InteractionMatrix(
        weighted.indptr.astype(np.int64),
        weighted.indices.astype(np.int32),
        weighted.data.astype(np.float32),
        len(chosen),
    )
    return TextFeatures(rows, tuple(words[chosen].tolist()))


def _source(snapshot: Snapshot, settings: WordSettings) -> str:
    """Whose words they are: of profiles from this source, or the catalogue's own."""
    if PROFILE not in settings.texts:
        return "attributes"
    return str(snapshot.stages["profile"]["summary"]["source"])


def _write(folder: Path, text: TextFeatures) -> None:
    paths = text.words.save(folder, "text")
    paths.append(folder / "text.json")
    paths[-1].write_text(json.dumps(list(text.vocabulary), ensure_ascii=False), encoding="utf-8")
    sums = {path.name: _sha256(path) for path in paths}
    (folder / _SUMS).write_text(json.dumps(sums, sort_keys=True), encoding="utf-8")


def _whole(folder: Path) -> bool:
    """Whether the words are there as they were written; what rotted is counted again."""
    try:
        sums = json.loads((folder / _SUMS).read_text("utf-8"))
        return all(_sha256(folder / name) == expected for name, expected in sums.items())
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
