"""A contact sheet of the rendered faces: one row per emotion.

python analysis/contact_sheet.py docs/faces.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from hmtl_ablate.data.reading import EMOTIONS
from hmtl_ablate.data.renderer import render_faces


def contact_sheet(columns: int = 10, size: int = 80, seed: int = 0) -> np.ndarray:
    """RGB image, uint8 [emotions · size, 90 + columns · size, 3]."""
    images, labels = render_faces(columns * len(EMOTIONS) * 4, size, seed)
    rows = []
    for number, name in enumerate(EMOTIONS):
        faces = images[labels["emotion"] == number][:columns]
        title = np.full((size, 90, 3), 255, np.uint8)
        cv2.putText(title, name, (4, size // 2 + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        rows.append(np.concatenate([title, *faces], axis=1))
    return np.concatenate(rows)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "faces.jpg")
    target.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(target), contact_sheet()[..., ::-1])
    print(f"written to {target}")
