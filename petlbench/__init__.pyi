"""What `petlbench` gives, and where it comes from: the list that is read when a name is asked for."""

# What method files are made of: they import it from here alone, wherever the engine keeps it.
from .backbone.info import BackboneInfo as BackboneInfo
from .backbone.model import Backbone as Backbone
from .backbone.model import FusedAttentionSwitch as FusedAttentionSwitch
from .backbone.registry import build_backbone as build_backbone
from .catalog import MethodCard as MethodCard
from .features.attention import attend_to_stored as attend_to_stored
from .features.frozen import FinalFeature as FinalFeature
from .features.frozen import ImportantTokens as ImportantTokens
from .features.frozen import LayerStates as LayerStates
from .features.precision import dequantize as dequantize
from .features.precision import stored_parts as stored_parts
from .method import Adapted as Adapted
from .method import Classifier as Classifier
from .method import Companion as Companion
from .method import FeatureSpec as FeatureSpec
from .method import FrozenFeatures as FrozenFeatures
from .method import Inputs as Inputs
from .method import Method as Method
from .method import MethodSettings as MethodSettings
from .method import TensorSpec as TensorSpec
from .method import TrainingDefaults as TrainingDefaults
from .method import ViewSpec as ViewSpec
from .method import new_head as new_head
from .method import nothing_to_merge as nothing_to_merge
from .narrow_attention import attend_in_narrow_heads as attend_in_narrow_heads
from .narrow_attention import has_narrow_heads as has_narrow_heads

__version__: str
