"""What `petlbench` gives, and where it comes from: the list that is read when a name is asked for."""

# What method files are made of: they import it from here alone, wherever the engine keeps it.
from .core.entry import MethodCard as MethodCard
from .features.attention import attend_to_stored as attend_to_stored
from .features.frozen import FinalFeature as FinalFeature
from .features.frozen import ImportantTokens as ImportantTokens
from .features.frozen import LayerStates as LayerStates
from .features.precision import dequantize as dequantize
from .features.precision import stored_parts as stored_parts
from .metrics.metric import Metric as Metric
from .models.backbone import Backbone as Backbone
from .models.backbone import FusedAttentionSwitch as FusedAttentionSwitch
from .models.info import BackboneInfo as BackboneInfo
from .models.method import Adapted as Adapted
from .models.method import Classifier as Classifier
from .models.method import Companion as Companion
from .models.method import FeatureSpec as FeatureSpec
from .models.method import FrozenFeatures as FrozenFeatures
from .models.method import Inputs as Inputs
from .models.method import Method as Method
from .models.method import MethodSettings as MethodSettings
from .models.method import TensorSpec as TensorSpec
from .models.method import TrainingDefaults as TrainingDefaults
from .models.method import ViewSpec as ViewSpec
from .models.method import new_head as new_head
from .models.method import nothing_to_merge as nothing_to_merge
from .models.narrow_attention import attend_in_narrow_heads as attend_in_narrow_heads
from .models.narrow_attention import has_narrow_heads as has_narrow_heads
from .models.registry import build_backbone as build_backbone

__version__: str
