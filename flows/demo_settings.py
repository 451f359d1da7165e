"""The settings of the demo, as the commented file a reader finds beside the generated catalogue."""

from __future__ import annotations

DEMO_SETTINGS = """\
# Settings of the demo. The catalogue in this folder is generated: no person and no product in it is real.
name = "demo"
generated = true

[source]
interactions = "interactions.csv"
items = "items.jsonl"
users = "users.jsonl"

[split]
kind = "random"      # 3:1:1 over interactions; every user and item keeps one training row
shares = [3, 1, 1]
seed = 0

[profiles]
domain = "games"
engine = "attributes"  # texts composed from the attributes; no language model, nothing is sent

[embeddings]
name = "sentence-transformers"
model = "all-MiniLM-L6-v2"

[model]              # Mult-VAE whose latent space is matched with the language space
name = "dmrec"
fuse = "add"

[model.base]
name = "mult_vae"
latent_dim = 64      # a small catalogue wants a small model
hidden_dim = 200
dropout = 0.5
kl_weight = 1.0

[model.matching]
name = "mddm"
beta = 0.5

[model.meta_network]
hidden_dim = 100
reads = "items_only"  # users have no text; the pooled one would show the encoder the rows that dropout hides
unit_inputs = true

[training]
epochs = 400
batch_size = 256
learning_rate = 3e-3
evaluate_every = 3
patience = 10        # validation passes without a new best

[evaluation]
# the same model with the texts shuffled between items tells meaning from capacity
baselines = ["mult_vae", "popularity", "dmrec@language=shuffled"]

[warehouse]
root = "warehouse"
"""
