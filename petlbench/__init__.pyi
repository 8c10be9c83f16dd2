"""What `petlbench` gives, and where it comes from: the list that is read when a name is asked for."""

# The API.
from .api.bundles import board as board
from .api.bundles import pack as pack
from .api.bundles import verify_pack as verify_pack
from .api.data import audit_data as audit_data
from .api.data import cache_info as cache_info
from .api.data import data_info as data_info
from .api.data import doctor as doctor
from .api.data import prepare_data as prepare_data
from .api.data import prune_cache as prune_cache
from .api.data import verify_cache as verify_cache
from .api.data import verify_data as verify_data
from .api.learned import adapt as adapt
from .api.learned import evaluate as evaluate
from .api.learned import export as export
from .api.learned import load as load
from .api.learned import predict as predict
from .api.recommendation import recommend as recommend
from .api.recommendation import replay as replay
from .api.results import compare as compare
from .api.results import diff_results as diff_results
from .api.results import find_run as find_run
from .api.results import load_result as load_result
from .api.results import load_results as load_results
from .api.results import remove_results as remove_results
from .api.results import report as report
from .api.results import track_results as track_results
from .api.runs import bench as bench
from .api.runs import dry_run as dry_run
from .api.runs import estimate_memory as estimate_memory
from .api.runs import forecast_memory as forecast_memory
from .api.runs import preview_bench as preview_bench
from .api.runs import preview_bench_search as preview_bench_search
from .api.runs import preview_sweep as preview_sweep
from .api.runs import run as run
from .api.runs import sweep as sweep
from .core.catalog import register as register
from .core.config import RunConfig as RunConfig

# What method files are made of: they import it from here alone, wherever the engine keeps it.
from .core.entry import MethodCard as MethodCard
from .core.errors import InputError as InputError
from .core.errors import PetlbenchError as PetlbenchError
from .core.errors import RunError as RunError

# What other files of a user's own are made of.
from .data.readers.base import Reader as Reader
from .data.readers.base import ReaderCard as ReaderCard
from .data.readers.base import Source as Source
from .data.readers.settings import ReaderSettings as ReaderSettings
from .data.record import Record as Record
from .data.tasks.base import Labels as Labels
from .data.tasks.base import TaskType as TaskType
from .features.attention import attend_in_narrow_heads as attend_in_narrow_heads
from .features.attention import attend_to_stored as attend_to_stored
from .features.attention import has_narrow_heads as has_narrow_heads
from .features.frozen import FinalFeature as FinalFeature
from .features.frozen import ImportantTokens as ImportantTokens
from .features.frozen import LayerStates as LayerStates
from .features.quantization import dequantize as dequantize
from .features.quantization import stored_parts as stored_parts
from .features.token_attention import attend_to_tokens as attend_to_tokens
from .features.token_attention import restore_keys_values as restore_keys_values
from .metrics.metric import Metric as Metric
from .models.backbone import Backbone as Backbone
from .models.backbone import FusedAttentionSwitch as FusedAttentionSwitch
from .models.info import BackboneInfo as BackboneInfo
from .models.info import LinearShape as LinearShape
from .models.listing import list_backbones as list_backbones
from .models.listing import list_datasets as list_datasets
from .models.listing import list_methods as list_methods
from .models.listing import list_metrics as list_metrics
from .models.listing import list_reports as list_reports
from .models.listing import list_sweeps as list_sweeps
from .models.method import Adapted as Adapted
from .models.method import Classifier as Classifier
from .models.method import Companion as Companion
from .models.method import FeatureSpec as FeatureSpec
from .models.method import FrozenFeatures as FrozenFeatures
from .models.method import Inputs as Inputs
from .models.method import Method as Method
from .models.method import MethodSettings as MethodSettings
from .models.method import TaskLoss as TaskLoss
from .models.method import TensorSpec as TensorSpec
from .models.method import TrainingDefaults as TrainingDefaults
from .models.method import ViewSpec as ViewSpec
from .models.method import new_head as new_head
from .models.method import nothing_to_merge as nothing_to_merge
from .report.formats import Document as Document
from .report.formats import ReportFormat as ReportFormat
from .report.spec import ReportKind as ReportKind
from .study.executors.job import Executor as Executor
from .study.executors.job import ExecutorCard as ExecutorCard
from .training.loss import Loss as Loss

__version__: str
