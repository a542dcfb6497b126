"""The page of a comparison: what was asked, the verdict, and the numbers behind it."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from latentry import files
from latentry.data.pictures import data_uri
from latentry.evaluation.paired import MOST_SEEDS
from latentry.report import figures
from latentry.report.page import render


def write_comparison(content: dict[str, Any], folder: Path) -> Path:
    """Writes `index.html` and its charts as PNG into `folder`, from what `comparison.json` holds; returns the page."""
    charts = {"by-seed": by_seed(content), "by-class": by_class(content)}
    if len(content["labels"]) > 1:
        charts["by-labels"] = by_labels(content)
    for name, chart in charts.items():
        files.write_bytes(folder / f"{name}.png", chart.light)
    context = {
        "comparison": content,
        "most_seeds": MOST_SEEDS,
        "charts": {name: [data_uri(png) for png in chart] for name, chart in charts.items()},
    }
    page = folder / "index.html"
    files.write_text(page, render("comparison.html", context))
    return page


def by_seed(content: dict[str, Any]) -> figures.Chart:
    """Accuracy of both sides, a line for each pair."""

    def paint(axis: Axes, theme: figures.Theme) -> None:
        accuracies = np.array([side["accuracies"] for side in content["sides"]]) * 100
        for pair in accuracies.T:
            axis.plot(pair, [0, 1], color=theme.grid, zorder=1)
        for place, (values, color) in enumerate(zip(accuracies, theme.series, strict=False)):
            axis.scatter(values, np.full(len(values), place), color=color, s=28, zorder=2)
        axis.set_yticks([0, 1], [side["name"] for side in content["sides"]])
        axis.set_ylim(1.5, -0.5)
        axis.set_xlabel(f"{content['part']} accuracy, %; a line joins the runs of one seed")

    return figures.draw(6.4, 1.7, paint)


def by_class(content: dict[str, Any]) -> figures.Chart:
    """Difference in recall of each class with its corrected interval."""
    rows = [row for row in content["per_class"] if row["difference"] is not None]

    def paint(axis: Axes, theme: figures.Theme) -> None:
        axis.axvline(0, color=theme.text, linewidth=0.8)
        for place, row in enumerate(rows):
            color = {"better": theme.series[2], "worse": theme.series[1]}.get(row["verdict"], theme.series[0])
            if row["interval"] is not None:
                axis.plot([100 * bound for bound in row["interval"]], [place, place], color=color, linewidth=2)
            axis.scatter([100 * row["difference"]], [place], color=color, s=24, zorder=2)
        axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axis.invert_yaxis()
        axis.set_xlabel(f"recall of {content['names'][0]} less that of {content['names'][1]}, points")

    return figures.draw(6.4, 0.9 + 0.24 * len(rows), paint)


def by_labels(content: dict[str, Any]) -> figures.Chart:
    """Accuracy by share of the labels, with bands of the 95 % interval over seeds."""
    shares = [100 * entry["share"] for entry in content["labels"]]

    def paint(axis: Axes, theme: figures.Theme) -> None:
        for side, color in zip((0, 1), theme.series, strict=False):
            entries = [entry["sides"][side] for entry in content["labels"]]
            means = [100 * entry["accuracy"] for entry in entries]
            axis.plot(shares, means, color=color, marker="o", markersize=4, label=entries[0]["name"])
            # One seed, or several that agree, leave a band without width.
            bounds = [entry["accuracy_interval"] or 2 * [entry["accuracy"]] for entry in entries]
            axis.fill_between(shares, *(100 * np.array(bounds).T), color=color, alpha=0.18, lw=0)
        axis.set_xscale("log")
        axis.set_xticks(shares)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
        axis.minorticks_off()
        axis.set_xlabel("share of the labels that the classifier sees")
        axis.set_ylabel(f"{content['part']} accuracy, %")
        axis.legend(frameon=False, fontsize=8)

    return figures.draw(6.4, 3.4, paint)
