"""The catalogue: a model exists because it is named in this union."""

from typing import Annotated, get_args

from pydantic import Field

from rec_models.models.addvae import ADDVAEConfig
from rec_models.models.alpharec import AlphaRecConfig, AlphaRecStarConfig
from rec_models.models.auto_rec import AutoRecConfig
from rec_models.models.bandvae import BANDVAEConfig
from rec_models.models.bm3 import BM3Config
from rec_models.models.cdae import CDAEConfig
from rec_models.models.cfgan import CFGANConfig
from rec_models.models.constant import ConstantConfig
from rec_models.models.cvga import CVGAConfig
from rec_models.models.dgrm import DGRMConfig
from rec_models.models.diffrec import DiffRecConfig
from rec_models.models.dmrec import DMRecConfig
from rec_models.models.ease import EASEConfig
from rec_models.models.elsa import ELSAConfig
from rec_models.models.freedom import FREEDOMConfig
from rec_models.models.item_knn import ItemKNNConfig
from rec_models.models.item_mean import ItemMeanConfig
from rec_models.models.kar import KARConfig
from rec_models.models.l_diffrec import LDiffRecConfig
from rec_models.models.lightgcn import LightGCNConfig
from rec_models.models.llmrec import LLMRecConfig
from rec_models.models.macrid_vae import MacridVAEConfig, SEMMacridVAEConfig
from rec_models.models.mf import MFConfig
from rec_models.models.mult_vae import MultVAEConfig
from rec_models.models.ncf import NCFConfig
from rec_models.models.pia import PIAConfig
from rec_models.models.pl_rec import PLRecConfig
from rec_models.models.popularity import PopularityConfig
from rec_models.models.random import RandomConfig
from rec_models.models.rec_vae import RecVAEConfig
from rec_models.models.recgoat import RecGOATConfig
from rec_models.models.rlmrec_c import RLMRecCConfig
from rec_models.models.rlmrec_g import RLMRecGConfig
from rec_models.models.slim import SLIMConfig
from rec_models.models.vbpr import VBPRConfig
from rec_models.models.wmf import WMFConfig

# Bases that a matching and anchors can wrap.
VariationalConfig = Annotated[
    MultVAEConfig | CVGAConfig | LDiffRecConfig | RecVAEConfig | MacridVAEConfig, Field(discriminator="name")
]

# DMRec and PIA receive what they wrap, so the types are known only here; models do not import models.
DMRecConfig.model_rebuild(_types_namespace={"VariationalConfig": VariationalConfig})

LatentConfig = Annotated[
    MultVAEConfig | CVGAConfig | LDiffRecConfig | RecVAEConfig | MacridVAEConfig | DMRecConfig,
    Field(discriminator="name"),
]
PIAConfig.model_rebuild(_types_namespace={"LatentConfig": LatentConfig})

ModelConfig = Annotated[
    PopularityConfig
    | RandomConfig
    | ItemMeanConfig
    | DGRMConfig
    | CFGANConfig
    | DiffRecConfig
    | AutoRecConfig
    | NCFConfig
    | MFConfig
    | ConstantConfig
    | EASEConfig
    | SLIMConfig
    | ItemKNNConfig
    | WMFConfig
    | PLRecConfig
    | CDAEConfig
    | MultVAEConfig
    | CVGAConfig
    | LDiffRecConfig
    | RecVAEConfig
    | ELSAConfig
    | MacridVAEConfig
    | SEMMacridVAEConfig
    | BANDVAEConfig
    | ADDVAEConfig
    | DMRecConfig
    | PIAConfig
    | LightGCNConfig
    | RLMRecCConfig
    | RLMRecGConfig
    | KARConfig
    | LLMRecConfig
    | AlphaRecConfig
    | AlphaRecStarConfig
    | VBPRConfig
    | FREEDOMConfig
    | BM3Config
    | RecGOATConfig,
    Field(discriminator="name"),
]

CONFIGS: tuple[type, ...] = get_args(get_args(ModelConfig)[0])

__all__ = [
    "CONFIGS",
    "ADDVAEConfig",
    "AlphaRecConfig",
    "AlphaRecStarConfig",
    "AutoRecConfig",
    "BANDVAEConfig",
    "BM3Config",
    "CDAEConfig",
    "CFGANConfig",
    "CVGAConfig",
    "ConstantConfig",
    "DGRMConfig",
    "DMRecConfig",
    "DiffRecConfig",
    "EASEConfig",
    "ELSAConfig",
    "FREEDOMConfig",
    "ItemKNNConfig",
    "ItemMeanConfig",
    "KARConfig",
    "LDiffRecConfig",
    "LLMRecConfig",
    "LatentConfig",
    "LightGCNConfig",
    "MFConfig",
    "MacridVAEConfig",
    "ModelConfig",
    "MultVAEConfig",
    "NCFConfig",
    "PIAConfig",
    "PLRecConfig",
    "PopularityConfig",
    "RLMRecCConfig",
    "RLMRecGConfig",
    "RandomConfig",
    "RecGOATConfig",
    "RecVAEConfig",
    "SEMMacridVAEConfig",
    "SLIMConfig",
    "VBPRConfig",
    "VariationalConfig",
    "WMFConfig",
]
