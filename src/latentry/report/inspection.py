"""The page of an inspection: thumbnails of what was found, and the findings as lines of text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from latentry import files
from latentry.data.pictures import data_uri, picture_uri
from latentry.report import figures
from latentry.report.page import render

NUM_PAIRS = 24
NUM_SUSPECTS = 60
LARGEST_CLASSES = 40
"""Of more classes the worst reconstructed are in the table alone."""


def findings(content: dict[str, Any]) -> str:
    """A line for each thing that was looked for."""
    across = content["test_images_with_duplicates_in_training"]
    lines = [
        f"{part}: " + ", ".join(f"{name} {count:,}" for name, count in numbers.items())
        for part, numbers in content["counts"].items()
    ]
    if content["skipped"]:
        lines.append(f"could not be read: {len(content['skipped']):,}")
    lines.append(
        f"near-duplicates (similarity of at least {content['threshold']:g}): {len(content['duplicates']):,} pairs"
    )
    if content["test_pixels_read"]:
        share = across / content["counts"]["test"]["all"]
        lines.append(f"test images with a near-duplicate among the others: {across:,} ({share:.2%})")
    lines.append(f"labels that are likely wrong: {len(content['label_suspects']):,}")
    return "\n".join(lines)


def write_inspection(content: dict[str, Any], pictures: Mapping[int, np.ndarray], folder: Path) -> Path:
    """Writes `index.html` into `folder`, of what `inspection.json` holds and images (3, S, S) by place; returns it."""
    names, classes = content["names"], content["class_names"]

    def tile(place: int) -> dict[str, Any]:
        label = content["labels"].get(str(place), -1)
        return {
            "uri": picture_uri(pictures[place]),
            "name": names[str(place)],
            "label": classes[label] if label >= 0 else "",
        }

    def pair(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"tiles": [tile(row["first"]), tile(row["second"])]}

    worst: dict[str, list[dict[str, Any]]] = {}
    if len(classes) <= LARGEST_CLASSES:
        for row in content["worst_reconstructed"]:
            worst.setdefault(row["class"], []).append(tile(row["image"]) | {"error": row["error"]})
    counts = {part: content["counts"][part] for part in ("train", "val") if part in content["counts"]}
    context = {
        "inspection": content,
        "findings": findings(content),
        "counts": [data_uri(png) for png in figures.class_counts(counts)],
        "alike": [pair(row) for row in content["duplicates"][:NUM_PAIRS]],
        "nearest": [pair(row) for row in content["duplicates"][NUM_PAIRS:][-NUM_PAIRS:]],
        "below": [pair(row) for row in content["just_below"]],
        "worst": worst,
        "suspects": [
            row | {"tile": tile(row["image"]), "said": classes[row["label"]], "seeming": classes[row["seems"]]}
            for row in content["label_suspects"][:NUM_SUSPECTS]
        ],
    }
    page = folder / "index.html"
    files.write_text(page, render("inspection.html", context))
    return page
