"""300W-LP (Zhu et al. 2016): head pose, for training."""

from __future__ import annotations

from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import TRAIN, Source, folders_in, need_folder, wrong_layout
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.data.sets._shared import read_with_mats

LP_FOLDERS = frozenset(name + flip for name in ("AFW", "HELEN", "IBUG", "LFPW") for flip in ("", "_Flip"))


def read_300wlp(path: Path, _: DataConfig) -> Source:
    """AFW/, HELEN/, IBUG/, LFPW/ and their mirrored _Flip folders, each image next to its .mat.

    All of it is training data; the benchmarks test on AFLW2000-3D and BIWI. Each photograph appears in some ten
    synthesized poses and mirrored, so it counts as one subject: drawn splits and folds do not divide it. Images are
    cropped to the face (`MARGIN` in _shared.py).
    """
    need_folder(path)
    folders = [folder for folder in folders_in(path) if folder.name in LP_FOLDERS]
    if not folders:
        raise wrong_layout(
            path,
            "300W-LP",
            "AFW/, HELEN/, IBUG/, LFPW/ and their _Flip folders",
            lambda p: any(folder.name in LP_FOLDERS for folder in folders_in(p)),
        )
    return read_with_mats(path, folders, TRAIN, photograph=True)


register_dataset(
    "300wlp",
    read_300wlp,
    page="http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm",
    licence="research only",
)
