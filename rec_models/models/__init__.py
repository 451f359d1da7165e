"""The catalogue: a model exists because it is named in this union."""

from typing import Annotated, get_args

from pydantic import Field

from rec_models.models.dmrec import DMRecConfig
from rec_models.models.ease import EASEConfig
from rec_models.models.lightgcn import LightGCNConfig
from rec_models.models.mult_vae import MultVAEConfig
from rec_models.models.popularity import PopularityConfig

# Bases that a matching (and later anchors and flows) can wrap. Several members make it a union discriminated by name.
VariationalConfig = MultVAEConfig

# DMRec receives its base, so the type is known only here; models do not import models.
DMRecConfig.model_rebuild(_types_namespace={"VariationalConfig": VariationalConfig})

ModelConfig = Annotated[
    PopularityConfig | EASEConfig | MultVAEConfig | DMRecConfig | LightGCNConfig, Field(discriminator="name")
]

CONFIGS: tuple[type, ...] = get_args(get_args(ModelConfig)[0])

__all__ = [
    "CONFIGS",
    "DMRecConfig",
    "EASEConfig",
    "LightGCNConfig",
    "ModelConfig",
    "MultVAEConfig",
    "PopularityConfig",
    "VariationalConfig",
]
