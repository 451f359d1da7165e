"""What RecGOAT's parts must do, against loops over a small world, and what its released code is known to do."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rec_models import attention, neighbours, parse_config
from rec_models.adaptive_transport import EntropicSettings, transport_of
from rec_models.derived import DerivedArrays
from rec_models.errors import MissingSemanticMatrixError, ModelSettingsError
from rec_models.fusion import ModalityFusion
from rec_models.graph import adjacency
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.losses import contrast_of_sides
from rec_models.semantic import ModelInputs, SemanticMatrix, pooled_users

SEED = 20260613
N_USERS, N_ITEMS, DIM = 25, 30, 8
TWO = {"modalities": ("profiles", "tags")}
SETTINGS = EntropicSettings(0.05, 100, "detached")


def inputs_of(seed=SEED):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    tastes, topics = rng.standard_normal((N_USERS, 3)), rng.standard_normal((N_ITEMS, 3))
    train = InteractionMatrix.from_pairs(*np.nonzero(tastes @ topics.T > 1.2), None, n_users=N_USERS, n_items=N_ITEMS)
    semantic = {}
    for place, (name, width) in enumerate((("items", 10), ("items_tags", 6))):
        present = np.arange(N_ITEMS) % 6 != place
        vectors = (topics @ rng.standard_normal((3, width)) + 1) * present[:, None]
        semantic[name] = SemanticMatrix(torch.from_numpy(vectors.astype(np.float32)), torch.from_numpy(present))
    semantic["users"] = pooled_users(semantic["items"], train)
    return ModelInputs(train, semantic, 0)


def built(inputs, **options):
    torch.manual_seed(SEED)
    small = {"dim": DIM, "heads": 2, "neighbours": 3, "batch_pairs": 64}
    return parse_config({"name": "recgoat"} | small | options).build(inputs)


def first_batch(model, inputs):
    return next(iter(model.batches(ResidentInteractions(inputs.train), np.random.default_rng(0), 0)))


def stepped(inputs, steps, **options):
    model = built(inputs, **options)
    history, rng, order = ResidentInteractions(inputs.train), torch.Generator().manual_seed(0), np.random.default_rng(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        for batch in model.batches(history, order, 0):
            optimiser.zero_grad()
            torch.stack(list(model.loss(batch, rng, step).values())).sum().backward()
            optimiser.step()
    return model.eval()


ABLATIONS = {
    "no contrast": {"cmcl_weight": 0},
    "no transport": {"oat": "none", "oat_weight": 0},
    "no graph of users": {"user_graph": "none"},
    "graph by interactions": {"user_graph": "interactions"},
    "graph by profiles, gated": {"user_graph": "profiles", "user_fuse": "gate"},
    "no language for users": {"user_init": "id", "user_graph": "none"},
    "users of language alone": {"user_init": "llm"},
    "injected by concatenation": {"cmcl_weight": 0, "oat": "none", "attention_layers": 0, "fusion": "concat"},
    "injected by addition": {"cmcl_weight": 0, "oat": "none", "attention_layers": 0, "fusion": "sum"},
    "IDs alone": {"modalities": (), "user_graph": "none", "cmcl_weight": 0},
    "one modality alone": {"modalities": ("tags",), "ids": False, "cmcl_weight": 0, "oat": "none"},
    "unrolled": {"oat_gradient": "unrolled"},
    "scaled": {"oat_scaling": 0.5, "oat_epsilon": 0.01},
    "features transported": {"oat": "feature"},
    "features, unrolled": {"oat": "feature", "oat_gradient": "unrolled"},
    "softmax": {"fusion": "softmax"},
    "attention between users and items": {"interaction_graph": "attention", "layers": 2},
    "released code": {"profile": "official_code"},
    "scored by unit vectors": {"scoring": "unit", "penalty": "batch", "start": "normal"},
}


@pytest.mark.parametrize("options", ABLATIONS.values(), ids=ABLATIONS)
def test_every_ablation_is_an_option_whose_parameters_all_learn(options):
    inputs = inputs_of()
    model = built(inputs, **(TWO | options))
    terms = model.loss(first_batch(model, inputs), torch.Generator().manual_seed(0), 0)
    torch.stack(list(terms.values())).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().sum() > 0, name
    batch = ResidentInteractions(inputs.train).batch(np.arange(N_USERS))
    assert torch.equal(model.eval().scores(batch), model.eval().scores(batch))  # eval() lets kept vectors go


def test_without_all_it_adds_it_is_lightgcn_to_the_digit():
    """From equal seeds equal weights, equal scores and equal terms of the loss: edges and negatives are drawn alike."""
    inputs, shared = inputs_of(), {"dim": DIM, "layers": 2, "l2_weight": 1e-3, "edge_keep": 0.7, "batch_pairs": 64}
    ours = built(inputs, modalities=(), user_graph="none", cmcl_weight=0, **shared)
    torch.manual_seed(SEED)
    theirs = parse_config({"name": "lightgcn", "layer_agg": "sum"} | shared).build(inputs)
    assert len(list(ours.parameters())) == len(list(theirs.parameters())) == 2
    assert torch.equal(ours.user_side.table, theirs.user_table) and torch.equal(ours.item_table, theirs.item_table)
    for one, other in zip(ours.vectors(), theirs.vectors(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    batch = first_batch(ours, inputs)
    terms = [model.loss(batch, torch.Generator().manual_seed(1), 0) for model in (ours, theirs)]
    assert {name: float(term.detach()) for name, term in terms[0].items()} == {
        name: float(term.detach()) for name, term in terms[1].items()
    }


def test_the_released_scoring_normalises_the_layer_of_items_and_their_length():
    inputs = inputs_of()
    eye = torch.eye(N_USERS + N_ITEMS)
    step = adjacency(inputs.train)(eye)
    for options in ({"modalities": (), "user_graph": "none"}, TWO | {"fusion_start": (0.0, 0.0)}):
        model = built(inputs, scoring="unit", layer_agg="mean", layers=2, **options)
        heard = model.heard()
        found = model.fused(heard)
        torch.testing.assert_close(found.items, F.normalize(F.layer_norm(found.ids, (DIM,))), atol=1e-4, rtol=1e-4)
        if not options["modalities"]:
            first = torch.cat([model.user_side.table, model.item_table])
            torch.testing.assert_close(torch.cat([heard.users, found.ids]), (eye + step + step @ step) @ first / 3)


def cosine_info_nce(queries, keys, pool, temperature):
    logits = F.normalize(queries) @ F.normalize(pool).t() / temperature
    own = (F.normalize(queries) * F.normalize(keys)).sum(1) / temperature
    return (torch.logsumexp(logits, 1) - own).mean()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_released_contrast_is_that_of_loops_over_the_batch(sign):
    inputs = inputs_of()
    everywhere = torch.ones(N_ITEMS, dtype=torch.bool)
    full = {
        name: SemanticMatrix(m.vectors, everywhere) if name.startswith("items") else m
        for name, m in inputs.semantic.items()
    }
    inputs = ModelInputs(inputs.train, full, 0)
    model = built(inputs, profile="official_code", cmcl_sign=sign, **TWO)
    batch, negatives = first_batch(model, inputs), torch.randint(N_ITEMS, (64,))
    negatives = negatives[: len(batch)]
    heard, t = model.heard(), 0.2
    found = model.fused(heard)
    sides = [found.ids, found.languages["profiles"], found.languages["tags"]]
    users = heard.users[batch.users]
    own = cosine_info_nce(users, found.items[batch.items], found.items[batch.items], t)
    pairs = [
        cosine_info_nce(sides[a][some], sides[b][some], sides[b][some], t)
        for some in (batch.items, negatives)
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    between = sum(pairs) / 6 if sign > 0 else sum(1 - pair for pair in pairs) / 6
    torch.testing.assert_close(model.contrast(users, found, batch.items, negatives), 0.5 * own + 0.5 * between)


def test_a_repeated_item_is_no_negative_of_itself_in_the_paper_profile():
    inputs = inputs_of()
    model = built(inputs)
    found, some = model.fused(model.heard()), torch.tensor([3, 3, 3, 3])
    assert model.config.mask_duplicates and not built(inputs, profile="official_code").config.mask_duplicates
    assert contrast_of_sides(found.ids, found.items, some, 0.2, True).item() == pytest.approx(0, abs=1e-6)
    twice = contrast_of_sides(found.ids, found.items, some, 0.2, False).item()
    assert twice == pytest.approx(4 * math.log(4), rel=1e-5)


def test_equal_vectors_contrast_at_the_logarithm_of_their_number_and_none_exceeds_the_bound():
    items = torch.arange(N_ITEMS)
    equal = torch.ones(N_ITEMS, DIM)
    assert float(contrast_of_sides(equal, equal, items, 0.2, True)) / N_ITEMS == pytest.approx(math.log(N_ITEMS))
    one, other = torch.randn(2, N_ITEMS, DIM)
    for pair in ((one, other), (one, -one)):
        assert 0 <= float(contrast_of_sides(*pair, items, 0.2, True)) / N_ITEMS <= 10 + math.log(N_ITEMS)


@pytest.mark.parametrize("name", ["items", "items_tags", "users"])
def test_cutting_each_modality_changes_scores(name):
    inputs = inputs_of()
    silent = inputs.semantic[name]
    silent = SemanticMatrix(torch.zeros_like(silent.vectors), torch.zeros_like(silent.present))
    model = stepped(inputs, 2, **TWO)
    # the same weights: two that were trained apart would differ by what chance gave each of them
    deaf = built(ModelInputs(inputs.train, inputs.semantic | {name: silent}, 0), **TWO).eval()
    deaf.load_state_dict(model.state_dict())
    batch = ResidentInteractions(inputs.train).batch(np.arange(N_USERS))
    heard, unheard = model.scores(batch), deaf.scores(batch)
    assert torch.isfinite(unheard).all()
    assert not torch.allclose(heard, unheard)


@pytest.mark.parametrize("how", [{}, {"profile": "official_code"}, {"ids": False}, {"ids": False, "user_init": "llm"}])
def test_what_stands_in_rows_without_text_means_nothing(how):
    inputs = inputs_of()
    matrix = inputs.semantic["items_tags"]
    noise = torch.where(matrix.present[:, None], matrix.vectors, 7.0)
    other = ModelInputs(inputs.train, inputs.semantic | {"items_tags": SemanticMatrix(noise, matrix.present)}, 0)
    batch = ResidentInteractions(inputs.train).batch(np.arange(N_USERS))
    # the released plan reads every row, so its transport would hear them
    options = TWO | how | {"oat": "sample"}
    one, two = (stepped(world, 3, **options).scores(batch) for world in (inputs, other))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("language", ["shuffled", "random"])
def test_controls_move_every_modality_and_none_stays(language):
    inputs = inputs_of()
    model, plain = built(inputs, language=language, **TWO), built(inputs, **TWO)
    for name in TWO["modalities"]:
        assert not torch.equal(model.encoders[name].vectors, plain.encoders[name].vectors)
    if language == "shuffled":  # the same other item speaks in both
        texts, rows = (each.encoders["profiles"].vectors.tolist() for each in (model, plain))
        for item in torch.nonzero(model.encoders["profiles"].present).squeeze(1).tolist():
            other = rows.index(texts[item])
            assert torch.equal(model.encoders["tags"].vectors[item], plain.encoders["tags"].vectors[other])


def test_transport_and_contrast_bring_language_to_the_ids():
    inputs = inputs_of()
    aligned = stepped(inputs, 60, cmcl_weight=0.1, oat_weight=1.0).diagnostics([])
    apart = stepped(inputs, 60, cmcl_weight=0.0, oat="none", oat_weight=0.0).diagnostics([])
    start = built(inputs).eval().diagnostics([])
    assert aligned["w1_relative_profiles"] < 0.8 * min(start["w1_relative_profiles"], apart["w1_relative_profiles"])
    assert aligned["info_nce_profiles"] < min(start["info_nce_profiles"], apart["info_nce_profiles"])


def test_the_released_sign_drives_modalities_apart():
    inputs = inputs_of()
    options = {"cmcl_weight": 1.0, "cmcl_share": 1.0, "oat": "none", "oat_weight": 0.0}
    together, apart = (stepped(inputs, 20, cmcl_sign=sign, **options).diagnostics([]) for sign in (1, -1))
    start = built(inputs).eval().diagnostics([])["info_nce_profiles"]
    assert together["info_nce_profiles"] < start < apart["info_nce_profiles"]


@pytest.mark.parametrize("scale", [0.03, 0.1])
def test_the_released_map_hardly_knows_its_plan(scale):
    """As the specification lists: norm about 1 / dim beside sqrt(dim), and mass 0 once features reach 0.1."""
    torch.manual_seed(SEED)
    dim = 200
    released = transport_of("released", dim, SETTINGS)
    language, ids = torch.randn(2, 3000, dim) * scale
    plan = released.plan(language, ids)
    mass = float(plan.sum())
    assert mass == pytest.approx(1 if scale == 0.03 else 0, abs=0.01)
    assert float(plan.norm()) <= 2 / dim
    assert released.free.norm().item() == pytest.approx(math.sqrt(dim), rel=0.02)
    assert (plan.norm() / released.free.norm()).item() < 1e-3
    moved, spent = released(language, ids, torch.arange(3000), costed=True)
    torch.testing.assert_close(moved, language @ released.free, atol=1e-3, rtol=1e-2)
    assert spent == 0


def test_transport_of_dimensions_puts_a_shuffled_space_in_order():
    torch.manual_seed(SEED)
    ids = torch.randn(500, DIM) * torch.rand(DIM)
    order = torch.randperm(DIM)
    settings = EntropicSettings(0.02, 300, "detached")
    moved, cost = transport_of("feature", DIM, settings)(ids[:, order], ids, torch.arange(500), costed=True)
    torch.testing.assert_close(moved, ids, atol=1e-3, rtol=1e-3)
    assert cost.item() == pytest.approx(0, abs=1e-3)


def test_transport_of_items_is_zero_between_equal_clouds_and_blind_to_their_order():
    torch.manual_seed(SEED)
    sample = transport_of("sample", DIM, SETTINGS)
    ids, order = torch.randn(300, DIM), torch.randperm(300)
    moved, cost = sample(ids[order], ids, torch.arange(300), costed=True)
    assert torch.equal(moved, ids[order])
    assert cost.item() == pytest.approx(0, abs=1e-4)
    other = torch.randn(300, DIM) + 1
    costs = [
        float(sample(other[each], ids, torch.arange(300), costed=True)[1].detach())
        for each in (order, torch.arange(300))
    ]
    assert costs[0] == pytest.approx(costs[1], rel=1e-4) and costs[0] > 0.5


def test_texts_of_users_are_mapped_only_where_somebody_reads_them():
    inputs = inputs_of()
    assert not built(inputs, user_init="id", attention_layers=0).user_side.maps
    assert list(built(inputs, user_init="id").user_side.maps) == list(built(inputs).user_side.maps) == ["profiles"]


@pytest.mark.parametrize("moves_ids", [False, True])
def test_the_distance_carries_language_to_ids_and_ids_only_where_it_is_told(moves_ids):
    torch.manual_seed(SEED)
    language, ids = (torch.randn(200, DIM, requires_grad=True) for _ in range(2))
    sample = transport_of("sample", DIM, SETTINGS._replace(moves_ids=moves_ids))
    sample(language, ids, torch.arange(200), costed=True)[1].backward()
    assert language.grad is not None and language.grad.abs().sum() > 0
    assert (ids.grad is not None) == moves_ids


def test_at_the_width_of_baby_there_are_as_many_parameters_as_listed():
    transports = [transport_of("released", 800, SETTINGS) for _ in range(2)]
    assert sum(weight.numel() for each in transports for weight in each.parameters()) == 1_280_000
    fusion = ModalityFusion("free", [0.8, 0.05], 800, 0.1, normalised=True)
    assert fusion.norm.weight.numel() + fusion.norm.bias.numel() == 1600
    torch.testing.assert_close(fusion.shares(), torch.tensor([0.15, 0.8, 0.05]))
    soft = ModalityFusion("softmax", [0.8, 0.05], 8, 0.1, normalised=True).shares()
    torch.testing.assert_close(soft, torch.tensor([0.26, 0.50, 0.24]), atol=5e-3, rtol=0)


def test_a_profile_is_its_options_and_what_is_set_beside_it_stays():
    code = parse_config({"name": "recgoat", "profile": "official_code", "cmcl_sign": 1})
    assert (code.oat, code.user_graph, code.cmcl_sign, code.reject_negatives) == ("released", "none", 1, False)
    assert parse_config(code.key()) == code


def test_graphs_are_found_once_for_the_same_vectors_whichever_model_asks(tmp_path, monkeypatch):
    def unasked(*arguments):
        raise AssertionError("these neighbours were found before")

    inputs = replace(inputs_of(), derived=DerivedArrays(tmp_path))
    batch = ResidentInteractions(inputs.train).batch(np.arange(N_USERS))
    first = built(inputs, **TWO).eval().scores(batch)
    kept = {path.name for path in tmp_path.iterdir()}
    assert len(kept) == 4  # of items by either modality, of users by their texts and by what they took
    monkeypatch.setattr(neighbours, "nearest_neighbours", unasked)
    monkeypatch.setattr(attention, "co_interaction_neighbours", unasked)
    assert torch.equal(built(inputs, **TWO).eval().scores(batch), first)
    parse_config({"name": "freedom", "neighbours": 3, **TWO}).build(inputs)
    with pytest.raises(AssertionError, match="found before"):
        built(inputs, neighbours=4, **TWO)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_refusals_name_what_is_wrong():
    with pytest.raises(ModelSettingsError, match="heads must divide dim; 2 does not divide 13"):
        parse_config({"name": "recgoat", "dim": 13})
    with pytest.raises(ModelSettingsError, match="2 weights for 1 modalities"):
        parse_config({"name": "recgoat", "fusion_start": [0.5, 0.2]})
    with pytest.raises(ModelSettingsError, match="an item needs a modality"):
        parse_config({"name": "recgoat", "ids": False, "modalities": []})
    with pytest.raises(MissingSemanticMatrixError, match="items_covers"):
        built(inputs_of(), modalities=("profiles", "covers"))


def test_what_the_alignment_keeps_grows_with_the_batch_not_with_its_square():
    """Counted, not timed: bytes that autograd saves for the contrast of 2 n items are twice those of n."""
    kept = {}
    for n in (512, 1024):
        items = torch.arange(n)
        one, other = (torch.randn(n, DIM, requires_grad=True) for _ in range(2))
        sizes = {}

        def count(saved, sizes=sizes):
            sizes[saved.data_ptr()] = saved.untyped_storage().nbytes()
            return saved

        with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
            contrast_of_sides(one, other, items, 0.2, True).backward()
        kept[n] = sum(sizes.values())
    assert kept[1024] < 2.2 * kept[512]
