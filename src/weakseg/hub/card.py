"""The model card: what a run was trained on, how right it is, and how that was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from weakseg.errors import InputError
from weakseg.segmenter import MODEL
from weakseg.wording import counted

RESULTS = "results.json"

_USE = """```
weakseg pull {repo} --out runs/{short}
weakseg predict runs/{short} photos --out masks
```

```python
from weakseg import Segmenter

mask = Segmenter.load("runs/{short}").predict(image).mask  # (H, W, 3) uint8 in, (H, W) out
```"""


def model_card(run: Path, repo: str) -> str:
    """The card of a run, Markdown with the Hub's metadata in front.

    Args:
        run: run folder; without `results.json` the card says that nothing was measured.
        repo: "name/of-the-repository", shown in the commands.

    Raises:
        InputError: its files are not those of a run.
    """
    try:
        model = json.loads((run / MODEL).read_text())
        results = json.loads((run / RESULTS).read_text()) if (run / RESULTS).is_file() else {}
        sections = [
            f"# {model['name']}: {', '.join(model.get('kinds', ())) or 'semantic segmentation'}",
            _summary(model),
            "## Use",
            _USE.format(repo=repo, short=repo.rpartition("/")[2]),
            "## Trained on",
            _data(model, results.get("protocol", {})),
            "## Figures",
            _figures(results),
        ]
        metadata = _metadata(model, results).to_yaml()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "not the files of a run", file=run, found=str(error), rule=f"{MODEL} and {RESULTS}"
        ) from error
    return f"---\n{metadata}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(model: dict[str, Any], results: dict[str, Any]) -> ModelCardData:
    name, data = model["name"], {"dataset_type": model["name"], "dataset_name": model["name"]}
    evaluated = [
        EvalResult(
            task_type="image-segmentation",
            metric_type="mean_iou",
            metric_name=f"mIoU, {kind}",
            metric_value=round(miou["weakseg"], 4),
            **data,
        )
        for kind, miou in results.get("miou", {}).items()
        if miou.get("weakseg") is not None
    ]
    return ModelCardData(
        library_name="weakseg",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "weakly-supervised", *model.get("kinds", ())],
        model_name=name,
        eval_results=evaluated or None,
    )


def _summary(model: dict[str, Any]) -> str:
    classes = ", ".join(_plain(c) for c in model["classes"])
    parts = model["architecture"]
    background = model["background"]
    ground = "None of them is background." if background is None else f"Background: {background}."
    return (
        f"Classifies every pixel of a photograph into {len(model['classes'])} classes: {classes}. "
        f"{ground} Made with weakseg from weak labels.\n\nBackbone {parts['backbone']}, seen at "
        f"{parts['long_side']} pixels (long side), output stride {parts['output_stride']}, "
        f"embedding of {parts['dim']} dimensions."
    )


def _data(model: dict[str, Any], protocol: dict[str, Any]) -> str:
    images = protocol.get("train_images")
    number = "The number of images is not known"
    lines = [f"{number if images is None else counted(images, 'image')}."]
    counts = model.get("labels", {})
    if counts:
        lines += ["", "| kind of label | images | labels |", "| --- | ---: | ---: |"]
        lines += [f"| {k} | {c['images']:,} | {c['labels']:,} |" for k, c in counts.items()]
    elif model.get("kinds"):
        lines.append(f"Kinds of label: {', '.join(model['kinds'])}.")
    return "\n".join(lines)


def _figures(results: dict[str, Any]) -> str:
    protocol = results.get("protocol", {})
    lines = []
    for kind, methods in results.get("miou", {}).items():
        for method, miou in methods.items():
            if miou is not None:
                lines.append(f"- {kind}, {method.replace('_', ' ')}: mIoU **{100 * miou:.1f}**")
    if not lines:
        return "Nothing was measured: there were no masks to measure on."
    for kind, methods in results.get("iou", {}).items():
        lines += ["", f"| class | IoU ({kind}) |", "| --- | ---: |"]
        by_class = methods.get("weakseg", {})
        lines += [f"| {_plain(c)} | {_percent(v)} |" for c, v in by_class.items()]
    lines += ["", "How it was measured:", ""]
    lines += [f"- {key.replace('_', ' ')}: {_plain(value)}" for key, value in protocol.items()]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _plain(value: object) -> str:
    """Text that means nothing to Markdown or HTML: names of classes may hold anything."""
    text = " ".join(str(value).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#&" else c for c in text)
