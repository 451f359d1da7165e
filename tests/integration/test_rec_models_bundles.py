"""What a bundle brings to training: vectors, clusters, edges, held-out users; and what is refused of it."""

import numpy as np
import pytest
import torch
from servers.bundles import BASE, CLUSTERS, CVGA, L_DIFFREC, N_ITEMS, N_USERS, weights, with_held_out_users, write

from rec_models import Bundle
from rec_models.errors import (
    BundleError,
    ForeignCheckpointError,
    HeldOutUsersError,
    ItemClustersError,
    ProtocolError,
    UntrustedBytesError,
)
from rec_models.interactions import ResidentInteractions
from rec_models.recommender import GradientRecommender
from rec_models.training import load_trained, train


def test_clusters_travel_with_the_bundle_and_are_hashed(tmp_path):
    bundle = write(tmp_path / "bundle", model=L_DIFFREC)
    assert Bundle.open(bundle.directory).inputs().item_clusters.tolist() == CLUSTERS.tolist()
    np.save(bundle.directory / "item_clusters.npy", CLUSTERS[::-1])
    with pytest.raises(UntrustedBytesError, match="item_clusters"):
        Bundle.open(bundle.directory)
    with pytest.raises(BundleError, match=r"item_clusters\.npy is int64\(30,\), expected int64 \(31,\)"):
        bundle._item_clusters(31)


def test_a_model_of_clusters_without_clusters_is_refused_before_training(tmp_path):
    bundle = write(tmp_path / "bundle", model=L_DIFFREC, item_clusters=None)
    with pytest.raises(ItemClustersError, match="holds no item clusters"):
        train(bundle, lambda event: None, device="cpu")


def test_a_checkpoint_of_another_bundle_is_refused_with_both_names(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours, other = write(tmp_path / "a" / "bundle"), write(tmp_path / "b" / "bundle", seed=9)
    for bundle in (ours, other):
        train(bundle, lambda event: None, device="cpu")
    for path in other.checkpoint.iterdir():
        (ours.checkpoint / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ForeignCheckpointError, match="made with another bundle"):
        load_trained(ours, torch.device("cpu"))


def test_a_flipped_bit_in_the_bundle_is_found_before_training(tmp_path):
    bundle = write(tmp_path / "bundle")
    path = bundle.directory / "train.indices.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UntrustedBytesError, match=r"train\.indices"):
        Bundle.open(bundle.directory)


def test_semantic_matrices_are_linked_and_mapped_never_copied(tmp_path):
    bundle = write(tmp_path / "bundle", model={"name": "dmrec", "base": BASE})
    linked = bundle.directory / "semantic" / "items.npy"
    assert linked.stat().st_ino == (tmp_path / "items.npy").stat().st_ino
    vectors = bundle.inputs().semantic["items"].vectors
    mapped = np.load(linked, mmap_mode="r")
    np.testing.assert_array_equal(vectors.numpy(), mapped)
    with open("/proc/self/maps") as maps:
        assert str(linked) in maps.read()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_vectors_of_sixteen_bits_train_nearly_the_same_model(tmp_path, dtype):
    metrics = {}
    for name in ("float32", dtype):
        (tmp_path / name).mkdir()
        bundle = write(tmp_path / name / "bundle", model={"name": "dmrec", "base": BASE}, dtype=name)
        assert bundle.inputs().semantic["users"].vectors.dtype == getattr(torch, name)
        metrics[name] = train(bundle, lambda event: None, device="cpu")
    losses = [[row["loss"] for row in metrics[name]["history"]] for name in ("float32", dtype)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-2)


def test_changed_rows_replace_those_of_the_shared_file_in_this_process_alone(tmp_path):
    patch = tmp_path / "items.patch.npz"
    np.savez(patch, rows=np.array([2, 7]), values=np.full((2, 5), 0.5, np.float32))
    bundle = write(tmp_path / "bundle", model={"name": "dmrec", "base": BASE}, patch=patch)
    vectors = Bundle.open(bundle.directory).inputs().semantic["items"].vectors
    file = np.load(bundle.directory / "semantic" / "items.npy")
    assert vectors[[2, 7]].tolist() == [[0.5] * 5] * 2
    kept = [row for row in range(N_ITEMS) if row not in (2, 7)]
    np.testing.assert_array_equal(vectors[kept].numpy(), file[kept])
    assert not (file[[2, 7]] == 0.5).any()


def test_a_language_model_without_vectors_says_which_are_missing(tmp_path):
    bundle = write(tmp_path / "bundle", model={"name": "dmrec", "base": BASE})
    bundle.config["semantic"].pop("users")
    with pytest.raises(LookupError, match="'users'; the bundle holds: items"):
        train(bundle, lambda event: None, device="cpu")


def test_edges_travel_in_the_bundle_and_the_metrics_say_whose_they_are(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    chosen = np.full((N_USERS, 2), -1)
    chosen[7] = 4, 11
    given = write(tmp_path / "a" / "bundle", model={"name": "llmrec"}, edges={"llmrec": chosen})
    opened = Bundle.open(given.directory)
    np.testing.assert_array_equal(opened.inputs().edges["llmrec"].numpy(), chosen)
    without = write(tmp_path / "b" / "bundle", model={"name": "llmrec"})
    said = [train(bundle, lambda event: None, device="cpu")["provenance"]["edges"] for bundle in (opened, without)]
    assert said == ["a language model's", "surrogate edges, from embeddings"]


@pytest.mark.parametrize("pairs", [np.zeros((3, 2)), np.full((N_USERS, 2), N_ITEMS), np.full((N_USERS, 2), -2)])
def test_edges_that_lead_nowhere_are_refused_with_the_shape_expected(tmp_path, pairs):
    bundle = write(tmp_path / "bundle", model={"name": "llmrec"}, edges={"llmrec": pairs})
    with pytest.raises(BundleError, match=rf"edges_llmrec\.npy is .*, expected int64 \({N_USERS}, 2\) from -1 to 29"):
        bundle.inputs()


@pytest.mark.parametrize(
    "model", [BASE, CVGA, {"name": "ease"}, {"name": "popularity"}], ids=lambda model: model["name"]
)
def test_held_out_users_change_no_weight_and_are_scored_from_what_they_show(tmp_path, model):
    bundle, other = (with_held_out_users(tmp_path / name / "bundle", model, mirrored=name == "b") for name in "ab")
    metrics, others = (train(one, lambda event: None, device="cpu") for one in (bundle, other))
    for name, weight in weights(bundle).items():
        assert torch.equal(weight, weights(other)[name]), name
    assert metrics["protocol"] == "strong" and metrics["test"]["novelty@5"] > 0
    assert metrics["test"] != others["test"], "another row is masked, whatever the model makes of it"
    assert np.load(bundle.checkpoint / "per_user.npz")["test_user_index"].min() >= 32
    fitted = load_trained(bundle, torch.device("cpu"))
    if isinstance(fitted, GradientRecommender):
        batches = fitted.batches(ResidentInteractions(bundle.part("train")), np.random.default_rng(0), 8)
        assert sorted(user for batch in batches for user in batch.users.tolist()) == list(range(32))


def test_who_keeps_a_vector_a_user_and_who_names_the_wrong_protocol_is_refused(tmp_path):
    with pytest.raises(HeldOutUsersError, match="lightgcn learns each user by heart"):
        train(with_held_out_users(tmp_path / "a" / "bundle", {"name": "lightgcn"}), lambda event: None, device="cpu")
    with pytest.raises(ProtocolError, match="to 'strong'"):
        train(with_held_out_users(tmp_path / "b" / "bundle", BASE, "dmrec"), lambda event: None, device="cpu")
