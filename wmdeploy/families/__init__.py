"""Model families: the contract, which families there are, and what an adapter is written with.

A package that brings a family imports all it needs from here and `wmdeploy.programs.contract`.
Importing this imports no torch and no family.
"""

from wmdeploy.families.family import Deployment, Graph, ModelFacts, ModelFamily
from wmdeploy.families.find import (
    family_names,
    family_of,
    find_family,
    load_bundled_model,
    load_family,
    load_model,
    save_model,
    use_family,
)
from wmdeploy.families.half import graph_of, to_half
from wmdeploy.families.tensors import floats, integers, pixels

__all__ = [
    "Deployment",
    "Graph",
    "ModelFacts",
    "ModelFamily",
    "family_names",
    "family_of",
    "find_family",
    "floats",
    "graph_of",
    "integers",
    "load_bundled_model",
    "load_family",
    "load_model",
    "pixels",
    "save_model",
    "to_half",
    "use_family",
]
