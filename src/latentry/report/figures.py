"""The report's charts as PNG, each for a light and a dark page; from numbers alone, no network."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from latentry.data.pictures import pillow_of, png_of

PIXELS_PER_INCH, LARGEST_SIDE = 160, 8_000
LARGEST_NUM_NAMED = 100
"""With more classes there are no numbers in the cells of the confusion and no colours' names beside the latent."""
NUM_LATENT_POINTS = 1500
NUM_LATENT_COMPONENTS = 50
CLASS_COLORS = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#8a8f94",
)  # fmt: skip


class Theme(NamedTuple):
    """Colours of a page."""

    text: str
    grid: str
    series: tuple[str, str, str]
    heat: tuple[str, str]
    on_strong: str


THEMES = {
    "light": Theme(
        text="#3a3f47",
        grid="#e3e6ea",
        series=("#2f6fbf", "#e07b39", "#5b9a57"),
        heat=("#f3f5f8", "#2f6fbf"),
        on_strong="#ffffff",
    ),
    "dark": Theme(
        text="#c3c9d1",
        grid="#343a43",
        series=("#76a9ea", "#f0a263", "#86c47f"),
        heat=("#1e2229", "#76a9ea"),
        on_strong="#15181d",
    ),
}


class Chart(NamedTuple):
    """One chart: PNG bytes by theme."""

    light: bytes
    dark: bytes


def draw(width: float, height: float, paint: Callable[[Axes, Theme], object]) -> Chart:
    """Lets `paint` fill the axes of a figure of `width` x `height` inches, once a theme."""
    drawn = {}
    for name, theme in THEMES.items():
        # Dollar signs in the names of classes are no mathematics.
        with matplotlib.rc_context({"text.parse_math": False}):
            drawn[name] = _png_of(width, height, theme, paint)
    return Chart(**drawn)


def _png_of(width: float, height: float, theme: Theme, paint: Callable[[Axes, Theme], object]) -> bytes:
    dpi = min(PIXELS_PER_INCH, LARGEST_SIDE / max(width, height))
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    axis = figure.subplots()
    axis.tick_params(colors=theme.text, labelsize=8, length=0)
    axis.set_facecolor("none")
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.grid(color=theme.grid, linewidth=0.8)
    axis.set_axisbelow(True)
    paint(axis, theme)
    legend = axis.get_legend()
    for text in (axis.title, axis.xaxis.label, axis.yaxis.label, *(legend.get_texts() if legend else ())):
        text.set_color(theme.text)
        text.set_fontsize(8.5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()


def class_counts(counts: dict[str, dict[str, int]]) -> Chart:
    """Images a class, for each split: `counts` is split to class to number."""
    names = list(next(iter(counts.values())))

    def paint(axis: Axes, theme: Theme) -> None:
        left = np.zeros(len(names))
        for color, (split, values) in zip(theme.series, counts.items(), strict=False):
            widths = np.array([values[name] for name in names])
            axis.barh(names, widths, left=left, color=color, label=split, height=0.7)
            left += widths
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("images")
        axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return draw(6.0, 0.8 + 0.22 * len(names), paint)


def curve(rows: list[dict[str, Any]], stage: str, quantity: str, title: str) -> Chart:
    """A quantity ("loss", "accuracy", "psnr") of one stage by epoch, of training and validation."""
    chosen = [row for row in rows if row["stage"] == stage]

    def paint(axis: Axes, theme: Theme) -> None:
        for part, color in zip(("train", "validation"), theme.series, strict=False):
            points = [(row["epoch"], row[f"{part}_{quantity}"]) for row in chosen]
            points = [point for point in points if point[1] is not None]
            if points:
                axis.plot(*zip(*points, strict=True), color=color, marker="o", markersize=3, label=part)
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.set_xlim(0.5, max(row["epoch"] for row in chosen) + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.legend(frameon=False, fontsize=8)

    return draw(3.4, 2.6, paint)


def calibration(bins: dict[str, list[tuple[float, float]]]) -> Chart:
    """Accuracy by confidence, before and after calibration; on the diagonal both agree."""

    def paint(axis: Axes, theme: Theme) -> None:
        axis.plot([0, 1], [0, 1], color=theme.text, linewidth=0.8, linestyle=":")
        for (name, points), color in zip(bins.items(), theme.series[1::-1], strict=True):
            axis.plot(*zip(*points, strict=True), color=color, marker="o", markersize=3, label=name)
        axis.set_xlabel("confidence")
        axis.set_ylabel("accuracy")
        axis.legend(frameon=False, fontsize=8)

    return draw(3.4, 2.6, paint)


def confusion(matrix: list[list[int]], class_names: list[str]) -> Chart:
    """Heat map of recall: of the images of a row's class, the share that each column's class was given."""
    counts = np.array(matrix, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def paint(axis: Axes, theme: Theme) -> None:
        axis.imshow(shares, cmap=LinearSegmentedColormap.from_list("heat", theme.heat), vmin=0, vmax=1)
        axis.grid(visible=False)
        places = range(len(class_names))
        axis.set_xticks(places, class_names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(places, class_names)
        axis.set_xlabel("predicted")
        axis.set_ylabel("truth")
        if len(class_names) > LARGEST_NUM_NAMED:
            return
        for row in places:
            for column in places:
                share = shares[row, column]
                strong = share > 0.5
                color = theme.on_strong if strong else theme.text
                if round(100 * share):
                    axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=7.5)

    side = 1.5 + 0.38 * len(class_names)
    return draw(side, side * 0.92, paint)


def latent_map(latents: np.ndarray, labels: np.ndarray, class_names: list[str], seed: int) -> Chart:
    """The latent in two dimensions: t-SNE of up to 1,500 images' first 50 principal components, coloured by class.

    `latents` has shape (N, ...), `labels` (N,). Source: van der Maaten and Hinton 2008.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(labels))[:NUM_LATENT_POINTS])
    flat = np.nan_to_num(latents[chosen].reshape(len(chosen), -1).astype(np.float32), copy=False)
    components = min(NUM_LATENT_COMPONENTS, *flat.shape)
    flat = PCA(components, random_state=seed).fit_transform(flat)
    if not flat.any():
        return draw(6.4, 1, lambda axis, theme: axis.set_title("All latents are the same."))
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(flat)

    def paint(axis: Axes, theme: Theme) -> None:
        dots = []
        for label in range(len(class_names)):
            mine = labels[chosen] == label
            color = CLASS_COLORS[label % len(CLASS_COLORS)]
            dots.append(axis.scatter(places[mine, 0], places[mine, 1], s=7, color=color, alpha=0.85, linewidths=0))
        axis.set_xticks([])
        axis.set_yticks([])
        if len(class_names) <= LARGEST_NUM_NAMED:
            # Given as they are: of labels that begin with an underscore Matplotlib makes no entry.
            below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": 5}
            axis.legend(dots, class_names, frameon=False, fontsize=8, markerscale=2, **below)

    return draw(6.4, 5.6, paint)


def sheet(rows: list[np.ndarray], scale: int = 2) -> bytes:
    """A PNG with one row of pictures for each uint8 array (N, C, H, W), enlarged `scale` times."""
    height, width = rows[0].shape[-2:]
    picture = Image.new("RGB", (max(len(row) for row in rows) * (width + 2), len(rows) * (height + 2)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            picture.paste(pillow_of(image), (x * (width + 2) + 1, y * (height + 2) + 1))
    return png_of(picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST))
