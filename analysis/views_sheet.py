"""Training views drawn image by image on the CPU, and whole batches at once as on a GPU: one row below the other for
each augmentation level (none, weak, strong).

    python analysis/views_sheet.py views.jpg
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import typer

from hmtl_ablate.data.augment import training_view
from hmtl_ablate.data.augment_batch import BatchView
from hmtl_ablate.data.renderer import render_faces
from hmtl_ablate.data.views import LEVELS


def sheet(columns: int = 12, stored: int = 112, size: int = 96) -> np.ndarray:
    """uint8 [6 · size, columns · size, 3]."""
    faces, rows = render_faces(columns, stored, seed=0)[0], []
    for level in LEVELS:
        view, batch = training_view(level, stored, size, 3), BatchView(level, stored, size, 3)
        rows.append(np.hstack([view(face, seed) for seed, face in enumerate(faces)]))
        views = batch(torch.from_numpy(faces), batch.draw(columns, torch.Generator().manual_seed(0)))
        rows.append(np.hstack(list((views * 255).round().byte().permute(0, 2, 3, 1).numpy())))
    return np.vstack(rows)


def main(output: str) -> None:
    cv2.imwrite(output, cv2.cvtColor(sheet(), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    typer.run(main)
