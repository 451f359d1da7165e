"""What every base must do alone and inside DMRec: a base is tested from the moment it is named in its union."""

from typing import get_args

import numpy as np
import pytest
import torch

from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import DMRecConfig, VariationalConfig
from rec_models.recommender import VariationalRecommender
from rec_models.semantic import ModelInputs, SemanticMatrix, pooled_users

BASES = get_args(get_args(VariationalConfig)[0])
N_USERS, N_ITEMS = 30, 20
SMALL = {
    "mult_vae": {"hidden_dim": 12, "latent_dim": 5, "dropout": 0.2, "kl_weight": 0.1},
    "rec_vae": {"hidden_dim": 12, "hidden_layers": 3, "latent_dim": 5, "dropout": 0.2, "learning_rate": None},
    "macrid_vae": {"factors": 2, "dim": 4, "hidden_dim": 12, "dropout": 0.1, "kl_cap": 0.1, "kl_anneal_steps": 0},
    "cvga": {"latent_dim": 5, "dropout": 0.1, "kl_weight": 0.1},
    "l_diffrec": {"clusters": 2, "latent_dim": 7, "denoiser_hidden_dim": 12, "denoiser_dropout": 0.1, "kl_weight": 0.1}
    | {"learning_rate": None, "denoiser_learning_rate": None},
}
MATCHINGS = ("godm", "cpdm", "mddm")

by_base = pytest.mark.parametrize("base", [kind.model_fields["name"].default for kind in BASES])
by_matching = pytest.mark.parametrize("matching", MATCHINGS)


@pytest.fixture(scope="module")
def world():
    """Two camps of users and items; one item in four is known by its text alone."""
    rng = np.random.default_rng(7)
    pairs = [(u, i) for u in range(N_USERS) for i in range(N_ITEMS) if u % 2 == i % 2 and rng.random() < 0.5]
    train = InteractionMatrix.from_pairs(*zip(*pairs, strict=True), None, n_users=N_USERS, n_items=N_ITEMS)
    camps = np.eye(6, dtype=np.float32)[np.arange(N_ITEMS) % 2] + rng.normal(0, 0.1, (N_ITEMS, 6)).astype(np.float32)
    items = SemanticMatrix(torch.from_numpy(camps), torch.ones(N_ITEMS, dtype=torch.bool))
    clusters = torch.arange(N_ITEMS) % 2
    return ModelInputs(train, {"items": items, "users": pooled_users(items, train)}, 0, clusters)


def config(base, **settings):
    return DMRecConfig.model_validate(
        {"base": {"name": base} | SMALL[base], "meta_network": {"hidden_dim": 12}} | settings
    )


def run(settings, inputs, steps=25):
    """(model, terms of the last step) after some steps of the loop's own kind."""
    torch.manual_seed(inputs.seed)
    model, rng = settings.build(inputs), torch.Generator().manual_seed(inputs.seed)
    everybody = ResidentInteractions(inputs.train).batch(np.arange(N_USERS))
    groups = [{"params": group.parameters, "lr": group.learning_rate or 1e-2} for group in model.parameter_groups()]
    optimiser, terms = torch.optim.Adam(groups), {}
    for step in range(steps):
        optimiser.zero_grad()
        terms = model.loss(everybody, rng, step)
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
    return model.eval(), terms


def everybodys_scores(model, inputs):
    with torch.no_grad():
        return model.scores(ResidentInteractions(inputs.train).batch(np.arange(N_USERS)))


@by_base
def test_a_base_is_what_a_matching_can_wrap(base, world):
    assert isinstance(config(base).base.build(world), VariationalRecommender)


@by_base
def test_without_fusion_and_with_all_weight_on_the_prior_dmrec_is_its_base_to_the_last_bit(base, world):
    settings = config(base, fuse="none", matching={"name": "mddm", "beta": 1})
    wrapped, terms = run(settings, world)
    alone, terms_alone = run(settings.base, world)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, wrapped.collaborative.state_dict()[name]), name
    assert torch.equal(terms["reconstruction"], terms_alone["reconstruction"])
    assert torch.equal(terms["matching"], terms_alone["kl"])
    assert torch.equal(everybodys_scores(wrapped, world), everybodys_scores(alone, world))
    assert not [p for p in wrapped.meta_network.parameters() if p.grad is not None and p.grad.any()]


@by_base
@by_matching
def test_under_addition_a_matching_without_weight_is_the_ablation_add(base, matching, world):
    weightless = {"name": matching, "beta": 1 if matching == "mddm" else 0}
    silent, _ = run(config(base, matching=weightless), world)
    added, _ = run(config(base, matching={"name": "none"}), world)
    for name, tensor in added.state_dict().items():
        torch.testing.assert_close(silent.state_dict()[name], tensor, msg=name)


@by_base
@by_matching
@pytest.mark.parametrize("fuse", ["add", "none"])
def test_every_matching_trains_on_every_base_and_reads_the_language(base, matching, fuse, world):
    settings = config(base, matching={"name": matching}, fuse=fuse)
    before, after = (run(settings, world, steps)[1]["reconstruction"].item() for steps in (1, 60))
    assert after < 0.95 * before
    heard, _ = run(settings, world, 10)
    zeros = {name: SemanticMatrix(m.vectors * 0, m.present & False) for name, m in world.semantic.items()}
    unheard, _ = run(settings, ModelInputs(world.train, zeros, 0, world.item_clusters), 10)
    assert not torch.equal(everybodys_scores(heard, world), everybodys_scores(unheard, world))


@by_base
def test_low_precision_products_leave_every_term_in_float32_and_near_the_exact_one(base, world):
    batch, found = ResidentInteractions(world.train).batch(np.arange(N_USERS)), []
    for low in (False, True):
        torch.manual_seed(0)
        model = config(base).build(world)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            found.append(model.loss(batch, torch.Generator().manual_seed(0), 50))
            assert model.eval().scores(batch).dtype == torch.float32
    for name, exact in found[0].items():
        assert found[1][name].dtype == torch.float32
        assert found[1][name].item() == pytest.approx(exact.item(), rel=0.03), name


@by_base
def test_without_a_divergence_the_training_rows_are_learned_by_heart(base):
    """50 users x 40 items: what is left of the reconstruction above its floor, mean n_u ln n_u, after 400 steps."""
    print("seed 0")
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((50, 40)) < 0.12)
    train = InteractionMatrix.from_pairs(users, items, None, n_users=50, n_items=40)
    whole = {"name": base, "dropout": 0} | ({"dim": 20} if base == "macrid_vae" else {"latent_dim": 40})
    if base == "l_diffrec":
        whole["denoiser_dropout"] = 0
    if base == "rec_vae":
        whole["hidden_dim"] = 60
    lengths = train.lengths()[train.lengths() > 0]
    floor = (lengths * np.log(lengths)).sum() / 50
    vectors = SemanticMatrix(torch.zeros(40, 2), torch.zeros(40, dtype=torch.bool))
    inputs = ModelInputs(train, {"items": vectors, "users": pooled_users(vectors, train)}, 0)
    settings = DMRecConfig.model_validate({"base": whole, "matching_weight": 0, "fuse": "none"})
    torch.manual_seed(0)
    model, rng = settings.build(inputs), torch.Generator().manual_seed(0)
    batch = ResidentInteractions(train).batch(np.arange(50))
    optimiser, seen = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for step in range(400):
        terms = model.loss(batch, rng, step)
        optimiser.zero_grad()
        terms["reconstruction"].backward()
        optimiser.step()
        seen.append(terms["reconstruction"].item())
    excess = (seen[-1] - floor) / (seen[0] - floor)
    assert 0 <= excess < 0.1


@by_base
@pytest.mark.parametrize("gate", [False, True])
def test_gradients_reach_every_parameter_and_every_group_holds_its_own(base, gate, world):
    settings = config(base, gate=gate)
    for model in (settings.build(world), settings.base.build(world)):
        batch = ResidentInteractions(world.train).batch(np.arange(N_USERS))
        torch.stack(list(model.loss(batch, torch.Generator().manual_seed(0), 1).values())).sum().backward()
        for name, weight in model.named_parameters():
            assert weight.grad is not None and torch.isfinite(weight.grad).all() and weight.grad.any(), name
        grouped = [id(weight) for group in model.parameter_groups() for weight in group.parameters]
        assert sorted(grouped) == sorted(map(id, model.parameters()))
        assert len({group.name for group in model.parameter_groups()}) == len(model.parameter_groups())


@by_base
def test_dmrec_reports_divergences_and_informations_that_hang_together(base, world):
    model, _ = run(config(base), world)
    resident = ResidentInteractions(world.train)
    with torch.no_grad():
        found = model.diagnostics(resident.batch(users) for users in np.array_split(np.arange(N_USERS), 4))
    assert set(found) == {"kl_prior", "kl_language", "information_interactions", "information_language"}
    assert 0 <= found["information_interactions"] <= np.log(N_USERS) + 1e-6
    assert found["information_interactions"] - found["information_language"] == pytest.approx(
        found["kl_language"], rel=0.5, abs=0.5
    )


@pytest.mark.parametrize(("asked", "expected"), [("base", 0.1), (0.7, 0.7), ("1/B", 1 / 16)])
def test_the_matching_is_weighted_as_the_base_weighs_its_kl_unless_told_otherwise(asked, expected, world):
    assert config("mult_vae", matching_weight=asked).build(world).matching_weight(0, 16) == pytest.approx(expected)


def test_a_gate_without_a_branch_to_weigh_is_refused():
    with pytest.raises(ValueError, match="adds nothing"):
        config("mult_vae", gate=True, fuse="none")
