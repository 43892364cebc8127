"""The figure of the benchmark `scale`: python -m benchmarks.curve scale.json scale.svg"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PARTS = {
    "suggestion": "Optuna: suggestion",
    "report": "Optuna: epochs, pruner",
    "tell": "Optuna: end",
    "mlflow": "MLflow",
    "rest": "own work",
}


def write_curve(record: Mapping[str, Any], target: Path) -> None:
    """Time per trial over the trials that have ended: one panel per case, its parts on top of each other, and the CPU
    time as a line. target: an SVG file."""
    from hmtl_ablate.reporting.figures.style import COLOURS, new_figure, style

    curves = {name: points for name, points in record["curves"].items() if len(points) > 1}
    with style():
        figure, panels = new_figure(0.6 + 2.1 * max(len(curves), 1), max(len(curves), 1))
        for panel, (name, points) in zip(panels, curves.items(), strict=False):
            ended = [point["ended"] for point in points]
            parts = {part: text for part, text in PARTS.items() if any(point[part] for point in points)}
            heights = [[point[part] for point in points] for part in parts]
            panel.stackplot(ended, heights, labels=parts.values(), colors=COLOURS, alpha=0.75)
            panel.plot(ended, [point["cpu"] for point in points], "o-k", markersize=3, linewidth=1.2, label="CPU time")
            panel.set(title=name, ylabel="ms per trial", xlim=(0, max(*ended, 1)), ylim=(0, None))
            panel.legend(fontsize=7, loc="upper left", ncols=2)
        panels[-1].set_xlabel("trials that have ended before")
        figure.savefig(target, format="svg", metadata={"Date": None})
    text = target.read_text(encoding="utf-8")
    target.write_text("".join(line.rstrip() + "\n" for line in text.splitlines()), encoding="utf-8")


if __name__ == "__main__":
    write_curve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
