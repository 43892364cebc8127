"""The model card of an exported folder (Mitchell et al. 2019, *Model Cards for Model Reporting*)."""

from __future__ import annotations

from hmtl_ablate.config import metric_info
from hmtl_ablate.exporting.description import Description

INTENDED = """\
Research on faces: comparing ways of training, and measuring on images like those that it was trained on. It was trained
to measure a training method, not as a product. It reads expressions or angles of a cropped face; what a person feels,
or who they are, can't be concluded from that."""

LIMITS = """\
- It expects one face, cropped as in its data; it does not find faces, and gives an answer for any image.
- It is as good, and as biased, as its data. No metric by age, origin or sex of the people was measured unless it is in
  the table.
- Probabilities are not calibrated unless the table's calibration error (ECE) says so."""


def card(description: Description, separate_head: bool) -> str:
    """README.md of a folder; separate_head: the head is in a file of its own."""
    data = description.data
    terms = (
        f"Licence: {data.licence}. Its terms may extend to the weights." if data.licence else "No licence is declared."
    )
    tasks = "\n".join(f"- {name}: {_outputs(description, name)}" for name in description.tasks)
    return f"""\
---
library_name: timm
tags: [timm, hmtl-ablate]
---

# {description.backbone}: {", ".join(description.tasks)}

Trial `{description.trial_id}` of hmtl-ablate {description.version}; commit {description.commit or "not known"}.
Seed {description.seed}; weights of epoch {description.best_epoch} of {description.epochs}{_chosen(description)}. Its
pretext heads, if it had any, are left out.

## Outputs

{tasks}

## Preprocessing

{description.preprocessing}; `stored` {description.stored}, `crop` {description.crop}, `size` {description.size}, `mean`
{list(description.mean)}, `std` {list(description.std)}.

## Data

{data.name}{f", {data.page}" if data.page else ""}. {terms}

## Metrics

{_metrics(description)}
## Intended use

{INTENDED}

## Limits

{LIMITS}

## Loading it

{_loading(separate_head)}"""


def _outputs(description: Description, name: str) -> str:
    task = description.tasks[name]
    names = f" ({', '.join(task.classes or task.values)})" if task.classes or task.values else ""
    return f"{task.outputs} outputs{names}; {task.reading}"


def _chosen(description: Description) -> str:
    return f", chosen by {description.selected_by}" if description.selected_by else ""


def _metrics(description: Description) -> str:
    """A table: one row a metric of the whole split, with the number of images."""
    rows = []
    for name, value in sorted(description.metrics.items(), key=lambda item: not item[0].startswith("test/")):
        split = "test" if name.startswith("test/") else "val"
        info = metric_info(name)
        shown = f"{100 * value:.2f}%" if info.unit == "%" else f"{value:.4g}{info.unit}"
        count = description.images.get(name if "/recall/" in name else split, "not known")
        rows.append(f"| {split} | {info.title} | {shown} | {count} |\n")
    if not rows:
        return "None was measured.\n"
    note = "n: images. One training run, so no spread."
    return f"| Split | Metric | Value | n |\n|---|---|---|---|\n{''.join(rows)}\n{note}\n"


def _loading(separate_head: bool) -> str:
    parts = (
        "The network without its head; head.safetensors holds the head, a linear layer on the pooled features:\n"
        if separate_head
        else "timm:\n"
    )
    return f"""\
{parts}
    import timm
    model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
    outputs = model(images)  # float32 [batch, 3, size, size], preprocessed as above

hmtl-ablate:

    import hmtl_ablate as ha
    model = ha.load_model("FOLDER")
    print(model.predict("face.png"))

ONNX Runtime, with the file that `hmtl-ablate export TRIAL --to model.onnx` writes:

    import onnxruntime
    session = onnxruntime.InferenceSession("model.onnx")
    outputs = session.run(["outputs"], {{"images": images}})[0]
"""
