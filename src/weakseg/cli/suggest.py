"""`weakseg suggest`: what to look at and what to label next in a data set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from weakseg.annotation import check_kinds
from weakseg.cli.index import say
from weakseg.cli.photographs import dataset_part
from weakseg.errors import InputError
from weakseg.files import write_text
from weakseg.retrieval import Index, index_images
from weakseg.retrieval.segments import WEAK_KINDS
from weakseg.retrieval.suggestions import KINDS, suggestions_of, suggestions_page
from weakseg.segmenter import Segmenter
from weakseg.training.recipe import resolve_device
from weakseg.wording import counted


def suggest(
    dataset: Path,
    run: Path,
    top: int = 50,
    out: Path | None = None,
    split: str = "train",
    kinds: tuple[str, ...] = WEAK_KINDS,
    device: str = "auto",
) -> int:
    """Suggest which images of a data set to look at: what to label next, and what may be wrong.

    Writes OUT/suggestions.jsonl, a line for each image: kind ("label next", "label error", "near
    duplicate"), image, the segments that speak for it, score, reason; OUT/suggestions.html, the
    same with pictures; and OUT/index, which `weakseg retrieve` reads and the next call brings up
    to date.

    Args:
        dataset: Folder of the data set.
        run: Run folder that `weakseg train` wrote.
        top: Images of each kind.
        out: Folder to write to. Default: RUN/suggest.
        split: Part of the data set.
        kinds: Kinds of label that count; masks only if named.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Returns:
        0 if suggestions were written, 1 if the input is bad or an image could not be read.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if top < 1:
        raise InputError("--top", found=top, rule="1 or more")
    check_kinds(kinds)
    model = Segmenter.load(run, device=resolve_device(device))
    part = dataset_part(dataset, split)
    out = out or run / "suggest"
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("indexing", total=len(part))
        done = index_images(
            out / "index",
            model,
            part,
            info=part.info,
            kinds=kinds,
            prune=True,
            run=str(run.resolve()),
            context=0.0,  # what a segment shows counts here, not where
            progress=lambda name: progress.advance(task),
        )
    say(done, out / "index", console)
    index = Index.open(out / "index")
    suggestions = suggestions_of(index, top)
    lines = [json.dumps(s.to_dict(), ensure_ascii=False) + "\n" for s in suggestions]
    write_text(out / "suggestions.jsonl", "".join(lines))
    suggestions_page(out / "suggestions.html", index, suggestions)
    counts = Counter(s.kind for s in suggestions)
    for kind in KINDS:
        console.print(f"{kind}: {counted(counts[kind], 'image')}", markup=False)
    console.print(f"list and page: {out / 'suggestions.jsonl'}, {out / 'suggestions.html'}")
    return 1 if done.failed else 0
