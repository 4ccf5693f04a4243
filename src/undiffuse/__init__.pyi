from undiffuse.api.compare import compare as compare
from undiffuse.api.distill import distill as distill
from undiffuse.api.edit import Edited as Edited
from undiffuse.api.edit import edit as edit
from undiffuse.api.evaluate import evaluate as evaluate
from undiffuse.api.evaluate import measure as measure
from undiffuse.api.exchange import export as export
from undiffuse.api.exchange import import_model as import_model
from undiffuse.api.explore import explore as explore
from undiffuse.api.quickstart import quickstart as quickstart
from undiffuse.api.sample import load as load
from undiffuse.api.sample import sample as sample
from undiffuse.api.train import train as train
from undiffuse.api.tune import Tuned as Tuned
from undiffuse.api.tune import tune_sampler as tune_sampler
from undiffuse.api.tune_ema import TunedEMA as TunedEMA
from undiffuse.api.tune_ema import tune_ema as tune_ema
from undiffuse.diffusion import samplers as samplers
from undiffuse.evaluation.metrics import Metric as Metric
from undiffuse.evaluation.result import Evaluation as Evaluation
from undiffuse.exploration.explore import Exploration as Exploration
from undiffuse.features.networks import FeatureNetwork as FeatureNetwork
from undiffuse.networks.network import NetworkConfig as NetworkConfig
from undiffuse.report.grids import Images as Images
from undiffuse.runs.run import Run as Run
from undiffuse.sampling.model import Model as Model
from undiffuse.training.observers import Observer as Observer

__version__: str
__all__: list[str]
WHERE: dict[str, str]
