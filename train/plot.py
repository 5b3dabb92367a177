"""Plots the learning curve of metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

LOSSES = ("heatmaps_4", "heatmaps_2", "heatmaps_1", "pull", "push")


def plot(metrics: Path, out: Path) -> None:
    """Plot the losses (smoothed over ten records) and the AP and AR of the validations, if any, over the steps."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    training = [r for r in records if r["kind"] == "train"]
    validations = [r for r in records if r["kind"] == "validation"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    steps = np.array([r["step"] for r in training])
    for name in LOSSES:
        values = np.array([r[name] for r in training if name in r])
        if len(values):
            width = min(10, len(values))
            smooth = np.convolve(values, np.full(width, 1 / width), "valid")
            left.plot(steps[width - 1 :], smooth, label=name)
    left.set(yscale="log", xlabel="step", title="loss")
    for name in ("AP", "AP50", "AR"):
        right.plot([r["step"] for r in validations], [r[name] for r in validations], marker=".", label=name)
    right.set(xlabel="step", title="validation", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(out, dpi=110)
    plt.close(figure)
