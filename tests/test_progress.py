"""What a terminal shows of a training."""

import io

from rich.console import Console

from weakseg.training.progress import EVERY, Progress

LOSSES = ("image_similarity", "annotation", "cooccurrence", "affinity", "cross_entropy")


def shown(width):
    stream = io.StringIO()
    progress = Progress(Console(file=stream, width=width, force_terminal=True, color_system=None))
    with progress.training("cross-entropy-classifier", 1000, None) as log:
        for step in range(1, EVERY + 1):
            log(step, dict.fromkeys(LOSSES, float(step)))
    return stream.getvalue()


def test_a_terminal_of_80_columns_shows_step_time_left_and_every_loss():
    text = shown(80)
    bar = next(line for line in reversed(text.splitlines()) if "cross-entropy-classifier" in line)
    assert f"{EVERY}/1000 0:00:00 left" in bar
    assert "…" not in text
    for name in LOSSES:  # the mean of 1 to 20
        assert f"{name} 10.500" in text


def test_a_stage_without_losses_is_one_line():
    stream = io.StringIO()
    progress = Progress(Console(file=stream, width=80))
    with progress.stage("regions", 3) as advance:
        advance(3, 3)
    assert len(stream.getvalue().strip().splitlines()) == 1
