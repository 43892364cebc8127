"""Argument 7: what remains after training is the same for SL and HMTL; parameters and operations of each variant.

python analysis/inference_cost.py search_spaces/pretext.yaml --profile paper
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.errors import HmtlError
from hmtl_ablate.model import HMTLModel
from hmtl_ablate.report.render import Section, Table, render_sections
from hmtl_ablate.study import load_study

CLASSES = 8


def cost(config: TrialConfig) -> tuple[int, int, int]:
    """Parameters in training, parameters that remain, and floating-point operations of one image at inference."""
    plain = config.replaced({("model", "weights"): None} if config.model.weights else {})
    model = HMTLModel(plain, CLASSES).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.inference(torch.zeros(1, 3, config.data.size, config.data.size))
    remaining = sum(parameter.numel() for parameter in model.inference.parameters())
    return sum(parameter.numel() for parameter in model.parameters()), remaining, counter.get_total_flops()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Cost at inference of each variant of a study.")
    parser.add_argument("study", type=Path)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--format", choices=("terminal", "markdown", "latex"), default="terminal")
    options = parser.parse_args(arguments)
    try:
        study = load_study(options.study, profile=options.profile)
        rows = []
        for variant in study.variants:
            if not variant.evaluation:
                numbers = cost(variant.config(study.seeds[0]))
                rows.append((variant.name, *(f"{number / 1e6:,.3f}" for number in numbers)))
    except HmtlError as error:
        print(error, file=sys.stderr)
        return 2
    table = Table(
        f"{study.name} ({study.profile})",
        "The pretext heads are dropped after training.",
        ("Variant", "Parameters in training, M", "Parameters, M", "Operations an image, M"),
        tuple(rows),
        frozenset({1, 2, 3}),
        (),
    )
    sys.stdout.write(render_sections([Section("Cost at inference", "", (table,))], options.format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
