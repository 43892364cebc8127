"""From a study file to trials: its declaration, merging, search space and plan. Pure: reads the study file only."""

from hmtl_ablate.study.controls import Controls
from hmtl_ablate.study.deciding import Comparison
from hmtl_ablate.study.declaration import WINNER, Decide, Resources, Verdict
from hmtl_ablate.study.designs import (
    ON,
    Arm,
    Design,
    Walk,
    part_text,
    path_bound,
    path_in_words,
    selection_metric,
    walk,
)
from hmtl_ablate.study.pruners import PRUNERS, Pruner, register_pruner
from hmtl_ablate.study.reading import load_study
from hmtl_ablate.study.reference import study_reference
from hmtl_ablate.study.samplers import SAMPLERS, Sampler, register_sampler
from hmtl_ablate.study.schema import schema_text, study_schema
from hmtl_ablate.study.space import Parameter, Search, combinations, resolved
from hmtl_ablate.study.spec import (
    Study,
    Variant,
    data_configs,
    missing_data,
    needed,
    planned,
)

__all__ = [
    "ON",
    "PRUNERS",
    "SAMPLERS",
    "WINNER",
    "Arm",
    "Comparison",
    "Controls",
    "Decide",
    "Design",
    "Parameter",
    "Pruner",
    "Resources",
    "Sampler",
    "Search",
    "Study",
    "Variant",
    "Verdict",
    "Walk",
    "combinations",
    "data_configs",
    "load_study",
    "missing_data",
    "needed",
    "part_text",
    "path_bound",
    "path_in_words",
    "planned",
    "register_pruner",
    "register_sampler",
    "resolved",
    "schema_text",
    "selection_metric",
    "study_reference",
    "study_schema",
    "walk",
]
