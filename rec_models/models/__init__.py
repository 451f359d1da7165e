"""The catalogue: a model exists because it is named in this union."""

from typing import Annotated, get_args

from pydantic import Field

from rec_models.models.addvae import ADDVAEConfig
from rec_models.models.alpharec import AlphaRecConfig, AlphaRecStarConfig
from rec_models.models.bandvae import BANDVAEConfig
from rec_models.models.cvga import CVGAConfig
from rec_models.models.dmrec import DMRecConfig
from rec_models.models.ease import EASEConfig
from rec_models.models.elsa import ELSAConfig
from rec_models.models.kar import KARConfig
from rec_models.models.l_diffrec import LDiffRecConfig
from rec_models.models.lightgcn import LightGCNConfig
from rec_models.models.llmrec import LLMRecConfig
from rec_models.models.macrid_vae import MacridVAEConfig, SEMMacridVAEConfig
from rec_models.models.mult_vae import MultVAEConfig
from rec_models.models.popularity import PopularityConfig
from rec_models.models.rlmrec_c import RLMRecCConfig
from rec_models.models.rlmrec_g import RLMRecGConfig

# Bases that a matching (and later anchors and flows) can wrap.
VariationalConfig = Annotated[
    MultVAEConfig | CVGAConfig | LDiffRecConfig | MacridVAEConfig, Field(discriminator="name")
]

# DMRec receives its base, so the type is known only here; models do not import models.
DMRecConfig.model_rebuild(_types_namespace={"VariationalConfig": VariationalConfig})

ModelConfig = Annotated[
    PopularityConfig
    | EASEConfig
    | ELSAConfig
    | MultVAEConfig
    | CVGAConfig
    | LDiffRecConfig
    | MacridVAEConfig
    | SEMMacridVAEConfig
    | BANDVAEConfig
    | ADDVAEConfig
    | DMRecConfig
    | LightGCNConfig
    | RLMRecCConfig
    | RLMRecGConfig
    | KARConfig
    | LLMRecConfig
    | AlphaRecConfig
    | AlphaRecStarConfig,
    Field(discriminator="name"),
]

CONFIGS: tuple[type, ...] = get_args(get_args(ModelConfig)[0])

__all__ = [
    "CONFIGS",
    "ADDVAEConfig",
    "AlphaRecConfig",
    "AlphaRecStarConfig",
    "BANDVAEConfig",
    "CVGAConfig",
    "DMRecConfig",
    "EASEConfig",
    "ELSAConfig",
    "KARConfig",
    "LDiffRecConfig",
    "LLMRecConfig",
    "LightGCNConfig",
    "MacridVAEConfig",
    "ModelConfig",
    "MultVAEConfig",
    "PopularityConfig",
    "RLMRecCConfig",
    "RLMRecGConfig",
    "SEMMacridVAEConfig",
    "VariationalConfig",
]
