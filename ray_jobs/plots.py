"""Plots as Markdown images, drawn without a display and embedded, so that the UI fetches nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ray_jobs.reporting import Markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 80


def figure(width: float = 7, height: float = 3.5) -> Figure:
    """A figure that belongs to no window, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def image(drawn: Figure, alt: str) -> Markdown:
    """The figure as an embedded PNG."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", metadata={"Software": None})
    return Markdown(f"![{alt}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})")


def loss_curve(
    curves: Mapping[str, Sequence[tuple[float, float]]], title: str, what: str = "loss"
) -> Markdown:
    """Loss, or `what`, against step; `curves` maps a name (train, tuning) to (step, loss) pairs."""
    drawn = figure()
    axes = drawn.subplots()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
    axes.set(xlabel="step", ylabel=what, title=title)
    axes.legend()
    return image(drawn, title)


def bars_by_family(values: Mapping[str, Mapping[str, float]], title: str) -> Markdown:
    """Grouped horizontal bars, in per cent; `values` maps a row (a model or control) to family to share."""
    families = sorted({family for row in values.values() for family in row}, reverse=True)
    drawn = figure(height=1 + 0.45 * len(families))
    axes = drawn.subplots()
    width = 0.8 / max(len(values), 1)
    for i, (name, row) in enumerate(values.items()):
        places = [p + 0.4 - (i + 0.5) * width for p in range(len(families))]
        axes.barh(places, [100 * row.get(f, 0) for f in families], height=width, label=name)
    axes.set_yticks(range(len(families)), families)
    axes.set(xlabel="exact match, %", title=title, xlim=(0, 100))
    axes.legend(fontsize="small")
    return image(drawn, title)
