"""The settings of models looked at before anything is paid for, and what names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from pydantic import ValidationError

from flows.embedding_sets import PROFILE
from flows.errors import SettingValueError
from flows.model_choices import ModelChoice, clusters_of, earlier_choice
from flows.settings import SPEED_ONLY, PlainMapping, Settings, WordSettings, digest
from flows.steps.modalities import refuse_unknown_modalities
from flows.workspace import Workspace


def check_models(workspace: Workspace, choices: Sequence[ModelChoice], settings: Settings) -> bool:
    """Whether any of the models reads profiles; every setting of theirs validated before anything is paid for.

    Settings that a snapshot has seen through need no second look, and so no torch.

    Raises:
        UnknownModalityError: a model reads vectors that no set has.
    """
    refuse_unknown_modalities(workspace, choices, settings)
    if settings.split.kind != "given":
        refuse_protocol(settings, settings.split.kind == "users")
    key = settings_key(choices, settings)
    for snapshot in workspace.warehouse.snapshots():
        said = snapshot.stages.get("train", {}).get("summary", {})
        if said.get("settings_key") == key:
            return any(
                model["reads_language"] or PROFILE in model.get("words", {}).get("texts", ())
                for model in said["models"]
            )
    return needs_language(choices, settings)


def needs_language(choices: Sequence[ModelChoice], settings: Settings) -> bool:
    """Whether any of the models reads profiles, as vectors or as words; validates their settings."""
    from rec_models import parse_config

    for own in [{}, *(choice.training for choice in choices)]:
        parsed_settings(settings, own)
    if settings.split.kind != "given":
        refuse_protocol(settings, settings.split.kind == "users", choices)
    asked = [(parse_config(choice.mapping), PROFILE in words_of(choice, settings).texts) for choice in choices]
    return any(config.asks_for_language or (config.asks_for_words and profiles) for config, profiles in asked)


def refuse_protocol(settings: Settings, held_out: bool, choices: Sequence[ModelChoice] = ()) -> None:
    """Nothing, when `evaluation.protocol` fits a split that holds users out or does not, and so do all of the models.

    Raises:
        ProtocolError, HeldOutUsersError: from rec_models.
    """
    import rec_models
    from rec_models import parse_config

    configs = {choice.label: parse_config(choice.mapping) for choice in choices} if held_out else {}
    if held_out and (first := earlier_choice(choices, settings)):
        needed_by = ", ".join(choice.label for choice in choices if clusters_of(choice.mapping) > 1)
        configs[f"{first.name}, for the item clusters of {needed_by},"] = parse_config(first.mapping)
    if settings.evaluation.protocol in rec_models.PROTOCOLS:  # another name is refused with the rest of [evaluation]
        rec_models.refuse_protocol(settings.evaluation.protocol, held_out, configs)


def settings_key(choices: Sequence[ModelChoice], settings: Settings) -> str:
    """The models and how they are trained and measured, by their plain mappings."""
    training = {name: value for name, value in settings.training.items() if name not in SPEED_ONLY}
    if training.get("precision") == "auto":
        training["precision"] = parsed_settings(settings, {})[0]["precision"]
    evaluation = settings.evaluation.model_dump(mode="json", exclude={"baselines"}, exclude_none=True)
    first = earlier_choice(choices, settings)
    return digest(list(map(_plain, choices)), training, evaluation, *([_plain(first)] if first else []))


def _plain(choice: ModelChoice) -> PlainMapping:
    """A choice as a mapping; one without words of its own is named as it was before there could be any."""
    return {key: value for key, value in asdict(choice).items() if key != "words" or value}


def words_of(choice: ModelChoice, settings: Settings) -> WordSettings:
    """[words] under a model's own.

    Raises:
        SettingValueError: an option of them is unknown or has a value that does not fit.
    """
    try:
        return WordSettings.model_validate({**settings.words.model_dump(mode="json"), **choice.words})
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, ("words", *first["loc"])))
        raise SettingValueError(path, first["input"], f"{first['msg']}, in {choice.label}") from error


def parsed_settings(settings: Settings, own: PlainMapping) -> tuple[PlainMapping, PlainMapping]:
    """Training settings under a model's own, and evaluation settings, with every default, validated by rec_models.

    What only makes it faster is left out: a bundle must not remember it. `precision` is the one that `auto` comes to
    on this machine's device, for it changes results.
    """
    from rec_models import parse_evaluation, parse_training, resolve_device

    given = {name: value for name, value in {**settings.training, **own}.items() if name != "threads"}
    config = parse_training(given)
    # what every model was trained with before there was a choice is no part of an identity
    chosen = {"warm_start": config.warm_start, "batch_parts": config.batch_parts > 1}
    chosen["validated_users"] = config.validated_users is not None
    left_out = SPEED_ONLY | {name for name, is_chosen in chosen.items() if not is_chosen}
    training = config.model_dump(mode="json", exclude=set(left_out))
    if config.precision == "auto":
        training["precision"] = config.resolved_precision(resolve_device(config.device))
    measured = {"protocol", "ks", "names", "select_by", "cold_items", "relevant_rating", "ties", "cut_lists"}
    evaluation = settings.evaluation.model_dump(mode="json", include=measured, exclude_none=True)
    return training, parse_evaluation(evaluation).model_dump(mode="json", exclude_none=True)
