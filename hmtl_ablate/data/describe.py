"""A manifest in words, for `data check` and `data pack`."""

from __future__ import annotations

from hmtl_ablate.data.pack import Manifest
from hmtl_ablate.data.registry import DATASETS
from hmtl_ablate.supervised import SUPERVISED_TASKS

LISTED_FAULTS = 20
"""Number of faulty files listed."""
LISTED_DUPLICATES = 5
"""Number of dropped duplicates listed."""


def describe(manifest: Manifest) -> str:
    """What a pack holds: images, labels by split, what was left out, and the first faults and duplicates."""
    colour = "grey" if manifest.channels == 1 else "colour"
    lines = [
        f"{manifest.name}: {manifest.count} images, {manifest.stored} px, {colour}, fingerprint {manifest.fingerprint}"
    ]
    dataset = DATASETS.get(manifest.name)
    if dataset and dataset.page:
        lines.append(f"  {dataset.page} ({dataset.licence})")
    lines += [f"  layout: {manifest.layout}"] if manifest.layout else []
    lines += [f"  {note}" for note in manifest.notes]
    for task, splits in manifest.histogram.items():
        lines += [f"  {task}, {split}: {_counts(classes)}" for split, classes in splits.items()]
    for task, counts in manifest.labelled.items():
        if task not in manifest.histogram:
            lines.append(f"  {task}, labelled images: {_counts(counts)}{_ranges(manifest, task)}")
    lines += [f"  left out, {reason}: {count}" for reason, count in manifest.left_out.items()]
    lines.append(f"  unusable files: {len(manifest.dropped)}; dropped duplicates: {len(manifest.duplicates)}")
    if manifest.unread:
        known = ", ".join(f"{ending or 'without ending'} {count}" for ending, count in manifest.unread.items())
        lines.append(f"  files not read, by ending: {known}")
    lines += [f"    {dropped.file}: {dropped.reason}" for dropped in manifest.dropped[:LISTED_FAULTS]]
    lines += [f"    {found.file} = {found.of}: {found.reason}" for found in manifest.duplicates[:LISTED_DUPLICATES]]
    if len(manifest.duplicates) > LISTED_DUPLICATES:
        lines.append("    … all of them are in the pack's manifest.json")
    return "\n".join(lines)


def _ranges(manifest: Manifest, task: str) -> str:
    """Smallest, mean and largest of each number, e.g. "; yaw -60.1 to 58 (mean 0.4)"."""
    if task not in SUPERVISED_TASKS or task not in manifest.ranges:
        return ""
    names = SUPERVISED_TASKS[task].task.value_names
    texts = [
        f"{name} {low:.4g} to {high:.4g} (mean {mean:.3g})"
        for name, (low, mean, high) in zip(names, manifest.ranges[task], strict=False)
    ]
    return "; " + ", ".join(texts) if texts else ""


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
