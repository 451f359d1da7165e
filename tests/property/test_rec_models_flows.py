"""Flows against numerical Jacobians and against the Gaussians they are near."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_models.gaussians import DiagonalGaussian, kl_to_standard, log_density
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import DMRecConfig, MultVAEConfig
from rec_models.normalizing import InverseAutoregressiveFlow, divergence_of_flow
from rec_models.semantic import ModelInputs

DIM, CONTEXT = 5, 3


def wild(layers, seed, dim=DIM):
    """A flow far from where training begins."""
    torch.manual_seed(seed)
    flow = InverseAutoregressiveFlow(layers, dim, CONTEXT, 16).double()
    with torch.no_grad():
        for weight in flow.parameters():
            weight.normal_(0, 0.7)
    return flow


def jacobian_of(flow, z, context):
    return torch.autograd.functional.jacobian(lambda at: flow(at[None], context[None])[0][0], z)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), layers=st.integers(1, 3))
def test_the_log_volume_is_that_of_the_jacobian(seed, layers):
    flow = wild(layers, seed)
    z, context = torch.randn(4, DIM, dtype=torch.float64), torch.randn(4, CONTEXT, dtype=torch.float64)
    _, volumes = flow(z, context)
    for row in range(4):
        jacobian = jacobian_of(flow, z[row], context[row])
        assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(volumes[row].item(), abs=1e-9)


@pytest.mark.parametrize(("number", "backwards"), [(0, False), (1, True)])
def test_a_layer_is_triangular_and_the_next_one_the_other_way_round(number, backwards):
    print("seed 4")
    layer = wild(2, 4).layers[number]
    jacobian = jacobian_of(layer, torch.randn(DIM, dtype=torch.float64), torch.randn(CONTEXT, dtype=torch.float64))
    below, above = jacobian.tril(-1), jacobian.triu(1)
    nothing, something = (below, above) if backwards else (above, below)
    assert not nothing.any()
    assert something.abs().sum() > 0.1


def test_a_flow_in_one_dimension_is_affine_and_its_density_integrates_to_one():
    flow = wild(2, 9, dim=1)
    context = torch.zeros(1, CONTEXT, dtype=torch.float64)
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    end, volume = flow(z, context.expand(len(z), -1))
    standard = DiagonalGaussian(torch.zeros_like(z), torch.zeros_like(z))
    density = torch.exp(log_density(standard, z) - volume)
    order = end[:, 0].argsort()
    assert torch.trapezoid(density[order], end[order, 0]).item() == pytest.approx(1, abs=1e-6)


def test_a_flow_with_open_gates_has_the_divergence_of_its_gaussian():
    print("seed 2")
    flow = wild(2, 2)
    with torch.no_grad():
        for layer in flow.layers:
            layer.out.weight.zero_()
            layer.out.bias.zero_()
            layer.out.bias[DIM:] = 40.0
    torch.manual_seed(2)
    mean, log_variance = torch.randn(1, DIM).double(), torch.randn(1, DIM).double()
    start = DiagonalGaussian(mean.expand(40_000, -1), log_variance.expand(40_000, -1))
    z = start.sample(torch.Generator().manual_seed(2))
    end, volume = flow(z, torch.zeros(40_000, CONTEXT, dtype=torch.float64))
    torch.testing.assert_close(end, z)
    estimate = divergence_of_flow(start, z, end, volume).mean().item()
    assert estimate == pytest.approx(kl_to_standard(start)[0].item(), rel=0.02)


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(3)
    users, items = np.nonzero(rng.random((20, 15)) < 0.3)
    return ModelInputs(InteractionMatrix.from_pairs(users, items, None, n_users=20, n_items=15), {}, 0)


def built(world, **options):
    torch.manual_seed(0)
    return MultVAEConfig(hidden_dim=8, latent_dim=4, flow_hidden_dim=6, kl_weight=0.1, **options).build(world)


@pytest.mark.parametrize("options", [{"encoder_layers": 3}, {"flow_layers": 2, "encoder_layers": 2}])
def test_encoder_variants_learn_and_every_parameter_of_theirs_does(world, options):
    model, rng = built(world, **options), torch.Generator().manual_seed(0)
    batch = ResidentInteractions(world.train).batch(np.arange(20))
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for step in range(60):
        optimiser.zero_grad()
        terms = model.loss(batch, rng, step)
        sum(terms.values()).backward()
        assert all(weight.grad.any() for weight in model.parameters())
        optimiser.step()
        losses.append(terms["reconstruction"].item())
    assert losses[-1] < 0.9 * losses[0]


def test_variants_begin_with_the_weights_of_the_plain_model(world):
    plain = built(world).state_dict()
    for name, weight in built(world, encoder_layers=3, flow_layers=2).state_dict().items():
        assert name not in plain or torch.equal(weight, plain[name])


def test_only_the_decoded_end_of_a_flow_moves_the_scores(world):
    batch = ResidentInteractions(world.train).batch(np.arange(20))
    plain = built(world).scores(batch)
    assert torch.equal(built(world, flow_layers=2, decode_from="start").scores(batch), plain)
    assert not torch.allclose(built(world, flow_layers=2).scores(batch), plain)


def test_a_matching_refuses_a_posterior_that_is_no_gaussian():
    with pytest.raises(ValueError, match="flow_layers"):
        DMRecConfig.model_validate({"base": {"name": "mult_vae", "flow_layers": 1}})
