"""Bundles from Python: write one, verify one, import one."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hmtl_ablate.bundles.layout import ENDING
from hmtl_ablate.storage import store_folder

if TYPE_CHECKING:
    from hmtl_ablate.bundles.retraining import Retrained
    from hmtl_ablate.bundles.verifying import Verification
    from hmtl_ablate.training.folder import Imported


def bundle(
    study: str,
    output: str | Path | None = None,
    *,
    store: str | Path = "runs",
    tracking_uri: str | None = None,
) -> Path:
    """Write a study as one file that others can verify, and return its path.

    >>> import hmtl_ablate as ha
    >>> base = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> done = ha.run({"name": "example", "base": base, "variants": {"SL": {}}, "seeds": [0]}, progress=False)
    >>> ha.bundle("example").name
    'example.hmtl.zip'

    Report, study file, curves, predictions of each image, configs and versions are in it; weights, images, paths, and
    names of users and machines are not (docs/bundles.md).

    Args:
        study: name of the study; all of its profiles are in the bundle.
        output: the file; None for STUDY.hmtl.zip in the working folder.
        store: the folder of trials and databases.
        tracking_uri: MLflow tracking store; None for SQLite in the store.

    Raises:
        HmtlError: there is no such store or study, a trial's folder is missing or damaged, or the file can't be
            written.
    """
    from hmtl_ablate.bundles.writing import write_bundle
    from hmtl_ablate.reporting.results import require_runs

    place = store_folder(store)
    require_runs(tracking_uri, place)
    path = Path(output) if output is not None else Path(f"{_file_name(study)}{ENDING}")
    write_bundle(study, place, path, tracking_uri)
    return path


def verify(file: str | Path, *, imports: Sequence[str] = ()) -> Verification:
    """Recompute every cell of a bundle's tables from its predictions, without its data and without a GPU.

    >>> import hmtl_ablate as ha
    >>> base = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> done = ha.run({"name": "example", "base": base, "variants": {"SL": {}}, "seeds": [0]}, progress=False)
    >>> ha.verify(ha.bundle("example")).consistent
    True

    It proves that a bundle's numbers fit together, not that they were measured; `retrain` is the audit.

    Args:
        file: the bundle. It is read as a stranger's file: nothing in it is run.
        imports: modules of yours that register the tasks and backbones its configs name.

    Raises:
        HmtlError: the file is missing, damaged or no bundle, or would be unsafe to unpack.
    """
    from hmtl_ablate.bundles.verifying import verify_file
    from hmtl_ablate.checks import import_modules

    import_modules(list(imports))
    return verify_file(Path(file))


def retrain(
    file: str | Path,
    *,
    data: Mapping[str, str | Path] | None = None,
    seed: int | None = None,
    store: str | Path | None = None,
    imports: Sequence[str] = (),
) -> Retrained:
    """Train one trial of a bundle again, drawn by `seed`, and compare its curves, metrics and predictions.

    >>> import hmtl_ablate as ha
    >>> base = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> done = ha.run({"name": "example", "base": base, "variants": {"SL": {}}, "seeds": [0]}, progress=False)
    >>> ha.retrain(ha.bundle("example"), seed=0).agrees
    True

    On the same kind of machine (device, processor, precision, threads, PyTorch) they have to agree bit for bit;
    elsewhere the study's metric has to agree within `bundles.retraining.TOLERANCE`. The bundle's uncommitted
    difference is not applied.

    Args:
        file: the bundle.
        data: dataset → path of one's own copy; the rendered faces need none.
        seed: of the draw; None draws one, which the result names.
        store: where it is trained; None for a temporary folder.
        imports: modules of yours that register the tasks and backbones its configs name.

    Raises:
        HmtlError: the bundle can't be read, no trial of it can be trained by itself, or the data is missing or other
            data.
    """
    from hmtl_ablate.api.trials import train
    from hmtl_ablate.bundles.reading import opened
    from hmtl_ablate.bundles.retraining import compared, drawn, require_identity
    from hmtl_ablate.checks import import_modules, open_store
    from hmtl_ablate.data.build import open_pack

    import_modules(list(imports))
    number = random.SystemRandom().randrange(10**6) if seed is None else seed
    with opened(Path(file)) as found, tempfile.TemporaryDirectory(prefix="hmtl-retrain-") as folder:
        trial = drawn(found, number)
        place = open_store(store_folder(folder if store is None else store))
        paths = {name: Path(path) for name, path in (data or {}).items()}
        pack = open_pack(trial.content.config.data, paths.get(trial.content.config.data.name), place)
        require_identity(trial, pack)
        again = train(trial.content.config, store=place, data=paths or None, progress=False, threads=trial.threads)
        return compared(trial, again.folder, number)


def import_bundle(file: str | Path, store: str | Path = "runs") -> Imported:
    """Copy a bundle's trials into a store, without weights: `run` of the same study counts them, and `report` shows
    them.

    >>> import hmtl_ablate as ha
    >>> base = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> done = ha.run({"name": "example", "base": base, "variants": {"SL": {}}, "seeds": [0]}, progress=False)
    >>> len(ha.import_bundle(ha.bundle("example"), "elsewhere").taken)
    1

    Raises HmtlError when it can't be read, or does not fit together.
    """
    from hmtl_ablate.bundles.layout import BundleError
    from hmtl_ablate.bundles.reading import opened
    from hmtl_ablate.bundles.verifying import verified
    from hmtl_ablate.checks import open_store
    from hmtl_ablate.training.folder import import_trials

    with opened(Path(file)) as found:
        check = verified(found)
        if not check.consistent:
            raise BundleError(f"{file} does not fit together, so nothing was imported: {check.differences[0]}")
        return import_trials(found.root, open_store(store_folder(store)) / "trials")


def _file_name(study: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in study) or "study"
