from undiffuse.api import Edited as Edited
from undiffuse.api import Evaluation as Evaluation
from undiffuse.api import Exploration as Exploration
from undiffuse.api import FeatureNetwork as FeatureNetwork
from undiffuse.api import Images as Images
from undiffuse.api import Metric as Metric
from undiffuse.api import Model as Model
from undiffuse.api import NetworkConfig as NetworkConfig
from undiffuse.api import Observer as Observer
from undiffuse.api import Run as Run
from undiffuse.api import compare as compare
from undiffuse.api import distill as distill
from undiffuse.api import edit as edit
from undiffuse.api import evaluate as evaluate
from undiffuse.api import explore as explore
from undiffuse.api import export as export
from undiffuse.api import import_model as import_model
from undiffuse.api import load as load
from undiffuse.api import measure as measure
from undiffuse.api import quickstart as quickstart
from undiffuse.api import sample as sample
from undiffuse.api import samplers as samplers
from undiffuse.api import train as train

__version__: str
__all__: list[str]
