"""Argument 7: what remains after training is the same for SL and HMTL; parameters and operations of each variant.

python analysis/inference_cost.py search_spaces/pretext.yaml --profile paper
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.errors import HmtlError
from hmtl_ablate.model import HMTLModel
from hmtl_ablate.reporting.document import Column, Section, Table
from hmtl_ablate.reporting.formats import TEXT_FORMATS
from hmtl_ablate.reporting.render import render_sections
from hmtl_ablate.study import Study, load_study

CLASSES = 8


@dataclass(frozen=True)
class Cost:
    """What a variant costs."""

    variant: str
    training_parameters: int
    parameters: int
    """What remains at inference."""
    operations: int
    """Floating-point operations per image at inference."""


COLUMNS: tuple[Column[Cost], ...] = (
    Column("variant", lambda row: row.variant, "Variant", align="left"),
    Column("training_parameters", lambda row: row.training_parameters / 1e6, "Parameters in training, M"),
    Column("parameters", lambda row: row.parameters / 1e6, "Parameters, M"),
    Column("operations", lambda row: row.operations / 1e6, "Operations per image, M"),
)


def cost(variant: str, config: TrialConfig) -> Cost:
    """Builds the network with random weights and counts one forward pass of one image."""
    plain = config.replaced({("model", "weights"): None} if config.model.weights else {})
    model = HMTLModel(plain, CLASSES).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.inference(torch.zeros(1, 3, config.data.size, config.data.size))
    return Cost(
        variant,
        training_parameters=sum(parameter.numel() for parameter in model.parameters()),
        parameters=sum(parameter.numel() for parameter in model.inference.parameters()),
        operations=counter.get_total_flops(),
    )


def cost_table(study: Study) -> Table[Cost]:
    """One row per variant that trains a network."""
    rows = tuple(
        cost(variant.name, variant.config(study.seeds[0])) for variant in study.variants if not variant.evaluation
    )
    title, lead = f"{study.name} ({study.profile})", "The pretext heads are dropped after training."
    return Table(title, lead, COLUMNS, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Cost at inference of each variant of a study.")
    parser.add_argument("study", type=Path)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--format", choices=tuple(TEXT_FORMATS), default="terminal")
    options = parser.parse_args(arguments)
    try:
        table = cost_table(load_study(options.study, profile=options.profile))
    except HmtlError as error:
        print(error, file=sys.stderr)
        return 2
    sys.stdout.write(render_sections([Section("Cost at inference", "", (table,))], options.format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
