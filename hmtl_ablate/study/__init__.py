"""From a YAML file to trials: spec, merging, search space, plan. Pure: it reads the study file and nothing else."""

from hmtl_ablate.study.reading import load_study
from hmtl_ablate.study.schema import schema_text, study_schema
from hmtl_ablate.study.space import Parameter, Pruner, Search, combinations, resolved
from hmtl_ablate.study.spec import (
    WINNER,
    Resources,
    Study,
    Variant,
    data_configs,
    missing_data,
    needed,
    planned,
)

__all__ = [
    "WINNER",
    "Parameter",
    "Pruner",
    "Resources",
    "Search",
    "Study",
    "Variant",
    "combinations",
    "data_configs",
    "load_study",
    "missing_data",
    "needed",
    "planned",
    "resolved",
    "schema_text",
    "study_schema",
]
