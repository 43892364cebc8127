"""What is in a bundle: the names of its files, how large each may be, and what `verify` says of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hmtl_ablate.errors import HmtlError

FORMAT = 1
ENDING = ".hmtl.zip"
MANIFEST, RECORDS, DATA = "manifest.json", "records.json", "data.json"
REPORT, PAGE = "report.json", "report.md"
ENVIRONMENT, LOCK = "environment.json", "requirements.lock"
CONFIG, HISTORY, RESULT = "config.json", "metrics.jsonl", "result.json"
PREDICTIONS, DIFF = "predictions.npz", "uncommitted.diff"

MIB = 2**20
SIZES = {
    MANIFEST: 16 * MIB,
    RECORDS: 64 * MIB,
    DATA: MIB,
    REPORT: 64 * MIB,
    PAGE: 64 * MIB,
    ENVIRONMENT: MIB,
    LOCK: MIB,
}
"""Entry → bytes that it may have."""
TRIAL_SIZES = {CONFIG: MIB, HISTORY: 64 * MIB, RESULT: 16 * MIB, PREDICTIONS: 512 * MIB, DIFF: 8 * MIB}
"""Entry of a trial's folder → bytes that it may have."""
STUDY_SIZE = MIB
TOTAL = 2048 * MIB
"""Bytes of all entries together, and of the file itself."""
ENTRIES = 50_000
RATIO = 200
"""Bytes of all entries per byte of the file, beyond the first ten MiB."""
REQUIRED = (MANIFEST, RECORDS, DATA, REPORT, PAGE)

_TRIAL = re.compile(r"trials/([0-9a-f]{16})/([a-z]+\.[a-z]+)")
_STUDY = re.compile(r"studies/[0-9]{1,4}\.yaml")


class BundleError(HmtlError):
    """A file that is no bundle, or one that can't be read safely."""


@dataclass(frozen=True)
class Difference:
    """One thing in a bundle that does not fit another."""

    file: str
    """Entry of the bundle that was compared."""
    where: str
    """The row and column of a table, or the metric of a trial."""
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.where}: {self.what}" if self.where else f"{self.file}: {self.what}"


def limit(name: str) -> int | None:
    """Bytes that an entry may have; None for a name that no bundle has."""
    if name in SIZES:
        return SIZES[name]
    if _STUDY.fullmatch(name):
        return STUDY_SIZE
    found = _TRIAL.fullmatch(name)
    return TRIAL_SIZES.get(found[2]) if found else None


def study_file(number: int) -> str:
    """Entry of a study's file; number: from 1."""
    return f"studies/{number}.yaml"
