"""Which sets of vectors a run makes: the default one that models read, and others beside it, each named."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError

from flows.errors import SettingValueError
from flows.settings import PlainMapping, Settings
from flows.source_settings import Branch
from flows.vector_sources import VECTORS, VectorFiles, parse_vectors

if TYPE_CHECKING:
    from providers import EncoderConfig, EncoderIdentity

# a text of a set, and what models call the default set
PROFILE, PROFILES = "profile", "profiles"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


class EmbeddingSet(Branch):
    """One set of vectors: which texts of an entity, put together how, by which encoder.

    Args:
        name: None for [embeddings], the default set; else the <name> of [encoders.<name>].
        encoder: the settings that `providers` validates, or those of files of vectors.
    """

    name: str | None = None
    encoder: PlainMapping
    texts: tuple[str, ...] = Field(
        default=(PROFILE,), min_length=1, description='"profile" and columns of the items and users tables'
    )
    pooling: Literal["mean", "max", "first"] = Field(
        default="mean", description="how the vectors of several texts become one; first: the first text that is there"
    )

    @property
    def path(self) -> str:
        """Where the settings have it."""
        return f"encoders.{self.name}" if self.name else "embeddings"

    @property
    def reads_profiles_alone(self) -> bool:
        return self.texts == (PROFILE,)

    @property
    def from_files(self) -> bool:
        """Whether its vectors are read rather than made."""
        return self.encoder.get("name") == VECTORS


@dataclass(frozen=True)
class DescribedSet:
    """A set whose encoder was looked up; no model is loaded.

    Attributes:
        table: `embeddings_<name>`; the default set's name is its encoder's.
    """

    wanted: EmbeddingSet
    config: EncoderConfig | VectorFiles
    identity: EncoderIdentity

    @property
    def table(self) -> str:
        return f"embeddings_{self.wanted.name or self.identity.short_name}"


def embedding_sets(settings: Settings) -> tuple[EmbeddingSet, ...]:
    """The default set first, then the others in the order of their names.

    Raises:
        SettingValueError: a name, `texts` or `pooling` that cannot be.
    """
    return default_set(settings), *(_set(name, settings.encoders[name]) for name in sorted(settings.encoders))


def default_set(settings: Settings) -> EmbeddingSet:
    """The set of [embeddings]."""
    return _set(None, settings.embeddings)


def described(sets: Sequence[EmbeddingSet]) -> list[DescribedSet]:
    """Every set with its encoder's identity.

    Raises:
        SettingValueError: a set is named as the default set's table is.
        What providers refuses.
    """
    from providers import parse_encoder

    found = []
    for wanted in sets:
        config = parse_vectors(wanted.encoder, wanted.path) if wanted.from_files else parse_encoder(wanted.encoder)
        found.append(DescribedSet(wanted, config, config.describe()))
    default = next((one for one in found if one.wanted.name is None), None)
    for one in found:
        if one is not default and default is not None and one.table == default.table:
            problem = f"the vectors of [embeddings] are in {default.table} already; give this set another name"
            raise SettingValueError(one.wanted.path, one.wanted.name, problem)
    return found


def encoder_of(one: DescribedSet) -> EncoderConfig:
    """The encoder of a set that has one."""
    assert not isinstance(one.config, VectorFiles), f"{one.wanted.path} is read from files"
    return one.config


def by_encoder(asked: Sequence[DescribedSet]) -> list[list[DescribedSet]]:
    """The sets of each encoder, in the order of the first."""
    keys = dict.fromkeys(one.identity.key for one in asked)
    return [[one for one in asked if one.identity.key == key] for key in keys]


def refuse_unknown_texts(sets: Sequence[EmbeddingSet], columns: Mapping[str, Sequence[str]]) -> None:
    """Nothing, when every text of every set is the profile or a column.

    Args:
        columns: kind → the columns of its source.

    Raises:
        SettingValueError: names the columns there are.
    """
    known = sorted({PROFILE, *(name for names in columns.values() for name in names)})
    for wanted in sets:
        for name in wanted.texts:
            if name not in known:
                raise SettingValueError(f"{wanted.path}.texts", name, f"no column; known: {', '.join(known)}")


def _set(name: str | None, mapping: PlainMapping) -> EmbeddingSet:
    own = {key: mapping[key] for key in ("texts", "pooling") if key in mapping}
    encoder = {key: value for key, value in mapping.items() if key not in own}
    path = f"encoders.{name}" if name else "embeddings"
    if name is not None and not _NAME.fullmatch(name):
        raise SettingValueError(path, name, "a set's name is small letters, digits and _, a letter first, at most 48")
    if name == PROFILES:
        raise SettingValueError(path, name, "models call the default set so, that of [embeddings]; give it another")
    try:
        chosen = EmbeddingSet.model_validate({"name": name, "encoder": encoder, **own})
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, (path, *fault["loc"])))
        raise SettingValueError(where, fault["input"], fault["msg"]) from None
    if chosen.from_files and own:
        raise SettingValueError(f"{path}.{next(iter(own))}", own, "vectors from files are made of no texts")
    if len(set(chosen.texts)) < len(chosen.texts):
        raise SettingValueError(f"{path}.texts", list(chosen.texts), "a text is named twice")
    return chosen
