"""Everything that the command line does, as functions: one a capability. `undiffuse` has them under the same names."""

from undiffuse.api.explore import explore as explore
from undiffuse.api.sample import load as load
from undiffuse.api.sample import sample as sample
from undiffuse.api.train import train as train
from undiffuse.exploration.explore import Exploration as Exploration
from undiffuse.training.observers import Observer as Observer
from undiffuse.networks.network import NetworkConfig as NetworkConfig
from undiffuse.runs.run import Run as Run
from undiffuse.api.exchange import export as export
from undiffuse.api.exchange import import_model as import_model
