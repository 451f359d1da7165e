"""What every model of the catalogue must do. A model is tested from the moment it is named in the union.

The checkerboard world: even users like even items and odd users odd ones; every user's own item (the diagonal) is held
out, so the right answer for user i is item i. Item vectors say which colour an item has. A model of ratings is told
that users rate items of their colour 5 and the others 1, one of which is held out beside the diagonal.
"""

from functools import cache

import numpy as np
import pytest
import torch

from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import CONFIGS
from rec_models.recommender import ClosedFormRecommender, GradientRecommender
from rec_models.semantic import ModelInputs, SemanticMatrix, pooled_users
from rec_models.text_features import TextFeatures
from rec_models.training import _let_learn

N = 12
SMALL = {
    "mult_vae": {"hidden_dim": 16, "latent_dim": 6, "dropout": 0.2, "kl_weight": 0.05},
    "cvga": {"latent_dim": 6, "dropout": 0.1, "kl_weight": 0.05},
    "l_diffrec": {"latent_dim": 8, "denoiser_hidden_dim": 16, "denoiser_dropout": 0.1, "kl_weight": 0.05},
    "macrid_vae": {"factors": 2, "dim": 6, "hidden_dim": 16, "dropout": 0.2, "kl_cap": 0.05},
    "bandvae": {"factors": 2, "text_factors": 2, "dim": 6, "hidden_dim": 16, "dropout": 0.2, "kl_cap": 0.05},
    "sem_macrid_vae": {"factors": 2, "dim": 6, "hidden_dim": 16, "dropout": 0.2, "kl_cap": 0.05},
    "addvae": {"factors": 2, "dim": 6, "hidden_dim": 16, "dropout": 0.2, "kl_cap": 0.05},
    "elsa": {"dim": 4},
    "ease": {"regularization": 1.0},
    "slim": {"l1": 0.1, "l2": 1.0},
    "item_knn": {"shrinkage": 1.0},
    "wmf": {"dim": 4, "confidence": 10.0, "ridge": 0.1},
    "pl_rec": {"dim": 4, "ridge": 0.1},
    "cdae": {"hidden_dim": 16, "dropout": 0.2},
    "rec_vae": {"hidden_dim": 16, "latent_dim": 6, "dropout": 0.2, "hidden_layers": 3},
    "pia": {"base": {"name": "mult_vae", "hidden_dim": 16, "latent_dim": 6, "dropout": 0.2, "kl_weight": 0.05}},
    "dmrec": {
        "base": {"name": "mult_vae", "hidden_dim": 16, "latent_dim": 6, "dropout": 0.2, "kl_weight": 0.05},
        "meta_network": {"hidden_dim": 16},
    },
    "lightgcn": {"dim": 8},
    "rlmrec_c": {"dim": 8, "alignment_weight": 0.1},
    "rlmrec_g": {"dim": 8},
    "kar": {"dim": 8, "expert_hidden_dim": 8, "l2_weight": 1e-3},
    "llmrec": {"dim": 8},
    "alpharec": {"dim": 8, "negatives": 16},
    "alpharec_star": {"dim": 8, "negatives": 16},
    "vbpr": {"dim": 8, "taste_dim": 8},
    "freedom": {"dim": 8, "neighbours": 3, "prune_share": 0.2},
    "bm3": {"dim": 8},
    "recgoat": {"dim": 8, "heads": 2, "neighbours": 2},
    "mf": {"dim": 2},
    "ncf": {"dim": 4, "hidden_dims": [8]},
    "auto_rec": {"hidden_dim": 12, "dropout": 0.2},
    "diffrec": {"hidden_dim": 16, "dropout": 0.1},
    "cfgan": {"hidden_dims": [16], "critic_hidden_dims": [8], "zero_share": 0.1},
    "dgrm": {"hidden_dims": [16], "critic_hidden_dims": [8], "noise_dim": 4, "samples": 2},
}
# Popularity cannot know a user's colour, and random does not want to; every other model must.
IMPERSONAL = {"popularity", "random", "constant", "item_mean"}
# Who serves a user it never met, though not as it serves a twin it knows: by chance, or without the vector of the user.
SERVED_OTHERWISE = {"random", "cdae"}

# Who hears of vectors only which cluster they fall into, whatever the order of their coordinates.
READS_CLUSTERS = {"sem_macrid_vae"}

by_model = pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.model_fields["name"].default)


def name_of(kind):
    return kind.model_fields["name"].default


def checkerboard():
    pairs = [(u, i) for u in range(N) for i in range(N) if u % 2 == i % 2 and u != i]
    users, items = zip(*pairs, strict=True)
    return InteractionMatrix.from_pairs(users, items, None, n_users=N, n_items=N)


def rated_checkerboard():
    pairs = [(u, i) for u in range(N) for i in range(N) if u != i and (u + 3) % N != i]
    users, items = np.array(pairs).T
    ratings = np.where(users % 2 == items % 2, 5.0, 1.0)
    return InteractionMatrix.from_pairs(users, items, ratings, n_users=N, n_items=N)


def inputs_of(train, seed=0):
    rng = np.random.default_rng(seed)
    colours = np.eye(8, dtype=np.float32)[np.arange(train.n_items) % 2]
    vectors = colours + rng.normal(0, 0.05, colours.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = SemanticMatrix(torch.from_numpy(vectors), torch.ones(train.n_items, dtype=torch.bool))
    return ModelInputs(train, {"items": items, "users": pooled_users(items, train)}, seed, text=words_of(train.n_items))


def words_of(n_items):
    """Every item says its colour, and one word of its own."""
    rows = np.repeat(np.arange(n_items), 2)
    words = np.stack([np.arange(n_items) % 2, 2 + np.arange(n_items)], 1).ravel()
    weights = InteractionMatrix.from_pairs(rows, words, None, n_users=n_items, n_items=2 + n_items)
    return TextFeatures(weights, ("white", "black", *(f"square {item}" for item in range(n_items))))


def mute(text):
    nothing = InteractionMatrix.from_pairs([], [], None, n_users=text.words.n_users, n_items=text.n_words)
    return TextFeatures(nothing, text.vocabulary)


def told_otherwise(world, *, by_rows):
    """The coordinates of all vectors, or the vectors themselves, and the words of all items in another order."""
    order = np.random.default_rng(1).permutation(N if by_rows else 8)
    semantic = {
        name: SemanticMatrix(each.vectors[order] if by_rows else each.vectors[:, order], each.present)
        for name, each in world.semantic.items()
    }
    words = world.text.words
    renamed = np.random.default_rng(1).permutation(world.text.n_words)[words.indices]
    rows = np.repeat(np.arange(words.n_users), words.lengths())
    shape = {"n_users": words.n_users, "n_items": words.n_items}
    text = TextFeatures(InteractionMatrix.from_pairs(rows, renamed, words.values, **shape), world.text.vocabulary)
    return ModelInputs(world.train, semantic, world.seed, text=text)


def reads(kind):
    config = kind(**SMALL.get(name_of(kind), {}))
    return config.asks_for_language or config.asks_for_words


def built(kind, inputs):
    torch.manual_seed(inputs.seed)
    return kind(**SMALL.get(name_of(kind), {})).build(inputs)


def whole(model, inputs):
    """All there is to learn from as one batch of the model's own kind."""
    return next(iter(model.batches(ResidentInteractions(inputs.train), np.random.default_rng(0), inputs.n_users)))


def trained(kind, inputs, steps=400):
    model = built(kind, inputs)
    if isinstance(model, ClosedFormRecommender):
        model.fit(inputs.train)
        return model.eval()
    epoch = model.batches(ResidentInteractions(inputs.train), np.random.default_rng(0), inputs.n_users)
    first, *rest = epoch
    sides = [first, *(batch for batch in rest if getattr(batch, "turn", "all") in ("generator", "critic"))]
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    rng = torch.Generator().manual_seed(inputs.seed)
    for step in range(steps):
        batch = sides[step % len(sides)]
        if len(sides) > 1:
            _let_learn(model.parameter_groups(), batch)
        optimiser.zero_grad()
        sum(model.loss(batch, rng, step).values()).backward()
        optimiser.step()
    return model.eval()


@cache
def world_of(rated):
    return inputs_of(rated_checkerboard() if rated else checkerboard())


@pytest.fixture
def world(kind):
    return world_of(kind(**SMALL.get(name_of(kind), {})).asks_for_ratings)


@cache
def trained_in_its_world(kind):
    return trained(kind, world_of(kind(**SMALL.get(name_of(kind), {})).asks_for_ratings))


@pytest.fixture
def models(kind):
    return {kind: trained_in_its_world(kind)}


@by_model
def test_the_held_out_item_of_the_diagonal_comes_first(kind, world, models):
    if name_of(kind) in IMPERSONAL:
        return
    batch = ResidentInteractions(world.train).batch(np.arange(N))
    with torch.no_grad():
        scores = models[kind].scores(batch)
    scores[batch.rows, batch.items] = -torch.inf
    assert scores.argmax(1).tolist() == list(range(N))


@by_model
def test_gradients_reach_every_parameter_and_are_finite(kind, world):
    model = built(kind, world)
    if not isinstance(model, GradientRecommender):
        assert not list(model.parameters())
        return
    batch = whole(model, world)
    sum(model.loss(batch, torch.Generator().manual_seed(0), 0).values()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().sum() > 0, name


@by_model
def test_a_loss_changes_nothing_beside_gradients_unless_the_model_says_so(kind, world):
    model = built(kind, world)
    if not isinstance(model, GradientRecommender) or any(
        hasattr(part, "remembers_batches") for part in model.modules()
    ):
        return
    batch, before = whole(model, world), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.loss(batch, torch.Generator().manual_seed(0), 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@by_model
def test_loss_falls_on_one_repeated_batch(kind, world, models):
    if not isinstance(models[kind], GradientRecommender):
        return

    def loss_of(model):
        terms = model.train().loss(whole(model, world), torch.Generator().manual_seed(5), 0)
        model.eval()
        return float(next(iter(terms.values())).detach())  # the fit to the interactions comes first

    assert loss_of(models[kind]) < 0.9 * loss_of(built(kind, world))


@by_model
def test_scores_do_not_depend_on_the_order_of_the_batch(kind, world, models):
    resident = ResidentInteractions(world.train)
    order = np.random.default_rng(0).permutation(N)
    with torch.no_grad():
        straight = models[kind].scores(resident.batch(np.arange(N)))
        shuffled = models[kind].scores(resident.batch(order))
    torch.testing.assert_close(shuffled, straight[torch.from_numpy(order)], atol=1e-5, rtol=1e-4)


@by_model
def test_the_same_seed_gives_the_same_weights(kind, world):
    first, second = (trained(kind, world, steps=5).state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@by_model
def test_a_user_without_history_gets_finite_scores(kind):
    train = InteractionMatrix.from_pairs([0, 0], [1, 2], None, n_users=2, n_items=4)
    model = trained(kind, inputs_of(train), steps=3)
    with torch.no_grad():
        assert torch.isfinite(model.scores(ResidentInteractions(train).batch(np.array([1])))).all()


@by_model
def test_two_evaluation_passes_agree_to_the_last_bit(kind, world, models):
    batch = ResidentInteractions(world.train).batch(np.arange(N))
    with torch.no_grad():
        # eval() lets go of what a first pass may have kept
        assert torch.equal(models[kind].eval().scores(batch), models[kind].eval().scores(batch))


@by_model
def test_state_goes_into_another_instance_and_gives_the_same_scores(kind, world, models):
    other = built(kind, inputs_of(world.train, seed=0))
    other.load_state_dict(models[kind].state_dict())
    batch = ResidentInteractions(world.train).batch(np.arange(N))
    with torch.no_grad():
        assert torch.equal(other.eval().scores(batch), models[kind].scores(batch))


@by_model
def test_semantic_matrices_are_no_part_of_the_checkpoint(kind, models):
    assert not [name for name in models[kind].state_dict() if "vectors" in name]


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if not reads(kind)], ids=name_of)
def test_cutting_the_embeddings_changes_nothing_for_models_that_read_no_language(kind, world):
    zeros = SemanticMatrix(torch.zeros(N, 8), torch.zeros(N, dtype=torch.bool))
    deaf = ModelInputs(world.train, {"items": zeros, "users": zeros}, world.seed, text=mute(world.text))
    batch = ResidentInteractions(world.train).batch(np.arange(N))
    heard, unheard = (trained(kind, inputs, steps=20).scores(batch) for inputs in (world, deaf))
    assert torch.equal(heard, unheard)


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if reads(kind)], ids=name_of)
def test_other_embeddings_give_other_scores_to_models_that_read_language(kind, world):
    """Neighbours, rows without text and draws of chance are the same in both worlds; only what is said is not."""
    batch = ResidentInteractions(world.train).batch(np.arange(N))
    other = told_otherwise(world, by_rows=name_of(kind) in READS_CLUSTERS)
    heard, differently = (trained(kind, inputs, steps=20).scores(batch) for inputs in (world, other))
    assert not torch.allclose(heard, differently)


@by_model
def test_who_says_so_scores_a_held_out_user_as_the_trained_user_with_the_same_row(kind, world):
    """Users 0 and 1 have twins of whom training sees nothing; who keeps a vector a user cannot tell they are twins."""
    users = np.repeat(np.arange(N), world.train.lengths())
    shape = {"n_users": N + 2, "n_items": N}
    values = world.train.values
    train = InteractionMatrix.from_pairs(users, world.train.indices, values, **shape)
    twins = users < 2
    fold_in = InteractionMatrix.from_pairs(users[twins] + N, world.train.indices[twins], values[twins], **shape)
    items = world.semantic["items"]
    pooled = {"items": items, "users": pooled_users(items, train.union(fold_in))}
    held_out = ModelInputs(train, pooled, world.seed, text=world.text, fold_in=fold_in)
    model, known = trained(kind, held_out, steps=30), ResidentInteractions(held_out.known)
    with torch.no_grad():
        ours, theirs = (model.scores(known.batch(np.array(pair))) for pair in ([0, 1], [N, N + 1]))
    alike = torch.allclose(ours, theirs, atol=1e-5)
    assert alike == (kind.scores_new_users and name_of(kind) not in SERVED_OTHERWISE)


@by_model
def test_settings_survive_json(kind):
    config = kind(**SMALL.get(name_of(kind), {}))
    assert kind.model_validate_json(config.model_dump_json()) == config
