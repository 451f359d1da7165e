"""The catalogue: a model exists because it is named in this union."""

from typing import Annotated, get_args

from pydantic import Field

from rec_models.models.alpharec import AlphaRecConfig, AlphaRecStarConfig
from rec_models.models.cvga import CVGAConfig
from rec_models.models.dmrec import DMRecConfig
from rec_models.models.ease import EASEConfig
from rec_models.models.kar import KARConfig
from rec_models.models.l_diffrec import LDiffRecConfig
from rec_models.models.lightgcn import LightGCNConfig
from rec_models.models.llmrec import LLMRecConfig
from rec_models.models.mult_vae import MultVAEConfig
from rec_models.models.popularity import PopularityConfig
from rec_models.models.recgoat import RecGOATConfig
from rec_models.models.rlmrec_c import RLMRecCConfig
from rec_models.models.rlmrec_g import RLMRecGConfig

# Bases that a matching (and later anchors and flows) can wrap.
VariationalConfig = Annotated[MultVAEConfig | CVGAConfig | LDiffRecConfig, Field(discriminator="name")]

# DMRec receives its base, so the type is known only here; models do not import models.
DMRecConfig.model_rebuild(_types_namespace={"VariationalConfig": VariationalConfig})

ModelConfig = Annotated[
    PopularityConfig
    | EASEConfig
    | MultVAEConfig
    | CVGAConfig
    | LDiffRecConfig
    | DMRecConfig
    | LightGCNConfig
    | RLMRecCConfig
    | RLMRecGConfig
    | KARConfig
    | LLMRecConfig
    | AlphaRecConfig
    | AlphaRecStarConfig
    | RecGOATConfig,
    Field(discriminator="name"),
]

CONFIGS: tuple[type, ...] = get_args(get_args(ModelConfig)[0])

__all__ = [
    "CONFIGS",
    "AlphaRecConfig",
    "AlphaRecStarConfig",
    "CVGAConfig",
    "DMRecConfig",
    "EASEConfig",
    "KARConfig",
    "LDiffRecConfig",
    "LLMRecConfig",
    "LightGCNConfig",
    "ModelConfig",
    "MultVAEConfig",
    "PopularityConfig",
    "RLMRecCConfig",
    "RLMRecGConfig",
    "RecGOATConfig",
    "VariationalConfig",
]
