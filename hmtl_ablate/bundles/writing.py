"""A study of a store as one file."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate import __version__
from hmtl_ablate.bundles.layout import (
    CONFIG,
    DATA,
    DIFF,
    ENVIRONMENT,
    FORMAT,
    HISTORY,
    LOCK,
    MANIFEST,
    PAGE,
    PREDICTIONS,
    RECORDS,
    REPORT,
    RESULT,
    study_file,
)
from hmtl_ablate.bundles.rebuilding import Records, declared_only, read_content, records_text
from hmtl_ablate.bundles.scrubbing import scrubbed, scrubbed_data
from hmtl_ablate.bundles.verifying import Verification, report_of, verify_file
from hmtl_ablate.config import declared_by_content, parse_config
from hmtl_ablate.errors import HmtlError, StoreError, StudyError, nearest
from hmtl_ablate.storage.files import replacing
from hmtl_ablate.tracking.records import SEARCH, StudyRecord, TrialRecord
from hmtl_ablate.tracking.store import Tracking, open_tracking
from hmtl_ablate.training.folder import TrialFolder, TrialResult

ABOUT = (
    "An ablation study of hmtl-ablate. `hmtl-ablate verify FILE` recomputes its tables from the predictions, without "
    "its data and without a GPU."
)


def write_bundle(study: str, store: Path, output: Path, tracking_uri: str | None = None) -> Verification:
    """Write a study's bundle and verify it. A study at several profiles or on several data has all of them in it.

    Raises StudyError for an unknown study, StoreError when a trial's folder is missing or the store does not fit
    together, so that the bundle could not be verified; then no file is written.
    """
    tracking = open_tracking(tracking_uri, store)
    records = _records(study, tracking)
    with tempfile.TemporaryDirectory(prefix="hmtl-bundle-") as folder:
        root = Path(folder) / "bundle"
        _fill(root, records, store, tracking, study)
        made = Path(folder) / "made.zip"
        _zip(root, made)
        found = verify_file(made)
        if not found.consistent:
            shown = "\n".join(f"  {one}" for one in found.differences[:10])
            raise StoreError(
                f"the store does not fit together, so a bundle of {study} could not be verified:\n{shown}\n"
                "run the study again, which trains what is damaged"
            )
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            with replacing(output) as new:
                shutil.copyfile(made, new)
        except OSError as error:
            raise HmtlError(f"--output {output}: can't be written: {error.strerror}") from error
    return found


def _records(study: str, tracking: Tracking) -> Records:
    """The records of all runs of a study and of their trials, the oldest first."""
    known = tracking.studies()
    studies = sorted((one for one in known if one.name == study), key=lambda one: (one.started, one.run_id))
    if not studies:
        names = [one.name for one in known]
        raise StudyError(f"there is no study {study!r} in this store; {nearest(study, names) or 'it has none'}")
    trials = [trial for one in studies for trial in tracking.trials(one.run_id)]
    return Records(tuple(studies), tuple(sorted(trials, key=lambda one: (one.started, one.run_id))))


def _fill(root: Path, records: Records, store: Path, tracking: Tracking, study: str) -> None:
    """Write the bundle's files below `root`."""
    (root / "trials").mkdir(parents=True)
    data: dict[str, Any] = {}
    for trial_id in dict.fromkeys(record.trial_id for record in records.trials):
        _copy_trial(TrialFolder(store / "trials" / trial_id), root / "trials" / trial_id)
    _require(records, root)
    for number, one in enumerate(records.studies, 1):
        text = tracking.study_text(one.run_id)
        if text is not None:
            shown = scrubbed(text)
            _write(root / study_file(number), shown)
            data[study_file(number)] = {"sha256": one.file, "scrubbed": shown != text}
    data |= _fingerprints({record.fingerprint for record in records.trials}, store)
    own = Records(
        tuple(_scrubbed_study(one) for one in records.studies),
        tuple(_scrubbed_trial(declared_only(one, (root / "trials" / one.trial_id).is_dir())) for one in records.trials),
    )
    contents = {folder.name: read_content(folder) for folder in sorted((root / "trials").iterdir())}
    report, page = report_of(own, contents, root)
    _write(root / RECORDS, records_text(own))
    _write(root / DATA, _json(data))
    _write(root / REPORT, _json(report))
    _write(root / PAGE, page)
    _write(root / ENVIRONMENT, _json(_environment()))
    _write(root / LOCK, "".join(f"{line}\n" for line in _lock()))
    files = {str(file.relative_to(root)): _digest(file) for file in sorted(root.rglob("*")) if file.is_file()}
    manifest = {"about": ABOUT, "format": FORMAT, "package": __version__, "study": study, "files": files}
    _write(root / MANIFEST, _json(manifest))


def _copy_trial(folder: TrialFolder, target: Path) -> None:
    """A trial's folder without weights, pictures, log and host; nothing where there is none."""
    if not (folder.path / CONFIG).exists():
        return
    copy = TrialFolder(target)
    config = folder.config()
    raw = config.model_dump(mode="json")
    if any(source.startswith("file:") for source in config.weight_sources.values()):
        raw = parse_config(declared_by_content(config)).model_dump(mode="json")
    copy.write_config(parse_config(raw))
    if (folder.path / HISTORY).exists():
        copy.write_history(folder.history())
    if (folder.path / DIFF).exists():
        copy.write_diff(scrubbed((folder.path / DIFF).read_text(encoding="utf-8", errors="replace")))
    result = folder.result()
    if result is None:
        return
    if damaged := folder.damage():
        raise StoreError(f"{folder.path} is damaged ({', '.join(damaged)}); run its study again, which trains it again")
    arrays = folder.predictions()
    if any("subject" in name for name in arrays):
        salt = config.data.model_dump_json()
        copy.write_predictions(
            {name: _hashed(array, salt) if "subject" in name else array for name, array in arrays.items()}
        )
    elif arrays:
        shutil.copyfile(folder.path / PREDICTIONS, target / PREDICTIONS)
    copy.write_result(_scrubbed_result(result))


def _scrubbed_result(result: TrialResult) -> TrialResult:
    tags = {name: scrubbed(text) for name, text in result.tags.items() if name != "host"}
    return result.model_copy(update={"tags": tags, "reason": scrubbed(result.reason)})


def _hashed(ids: NDArray[Any], salt: str) -> NDArray[np.uint64]:
    """Subjects' ids as numbers that are equal for equal ids: the first 8 bytes of a salted SHA-256."""
    found = [hashlib.sha256(f"{salt}/{one}".encode()).digest()[:8] for one in ids.tolist()]
    return np.frombuffer(b"".join(found), np.uint64).copy()


def _require(records: Records, root: Path) -> None:
    """Raise StoreError when a trial that a table counts has no folder in this store."""
    by_id = {study.run_id: study for study in records.studies}
    for record in records.trials:
        declared = by_id[record.parent].variants.get(record.variant) == record.variant_key or record.variant == SEARCH
        if record.status == "finished" and declared and not (root / "trials" / record.trial_id / RESULT).exists():
            raise StoreError(
                f"trial {record.trial_id} ({record.variant}, seed {record.seed}) has no result in this store, so its "
                "metrics could not be recomputed; name the --runs folder that has it, or import it"
            )


def _scrubbed_study(record: StudyRecord) -> StudyRecord:
    """Names of arms, evaluations and designs stay: `SL@48px` is no address, and two arms must not become one."""
    arms = {*record.variants, *record.search}
    fields = ("question", "data", "search", "plan")
    return replace(record, **{name: scrubbed_data(getattr(record, name), arms) for name in fields})


def _scrubbed_trial(record: TrialRecord) -> TrialRecord:
    fields = ("reason", "ending", "config", "environment")
    return replace(record, **{name: scrubbed_data(getattr(record, name)) for name in fields})


def _fingerprints(wanted: Iterable[str], store: Path) -> dict[str, Any]:
    """Fingerprint → name, size, images and digests of the further labels, from the packs of this store."""
    found: dict[str, Any] = {fingerprint: {} for fingerprint in sorted(wanted) if fingerprint}
    for file in sorted((store / "packs").glob("*/manifest.json")):
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if manifest.get("fingerprint") in found:
            names = ("name", "stored", "count", "splits", "classes", "label_digests")
            found[manifest["fingerprint"]] = {name: manifest.get(name) for name in names}
    return found


def _environment() -> dict[str, str]:
    """The machine that wrote the bundle, without its name; each trial's own is in its result.json."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "hmtl-ablate": __version__,
        "implementation": sys.implementation.name,
    }


def _lock() -> list[str]:
    """Each installed distribution with its version, as `pip freeze` prints those of a registry."""
    found = {(one.metadata["Name"] or "").lower(): one.version for one in metadata.distributions()}
    return [f"{name}=={version}" for name, version in sorted(found.items()) if name]


def _zip(root: Path, target: Path) -> None:
    """Files in the order of their names, all of one date, so that equal content gives an equal file."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(str(file.relative_to(root)))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, file.read_bytes())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _json(data: Any) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
