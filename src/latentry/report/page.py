"""The report: one self-contained HTML page, from the files of a run alone."""

from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from latentry import files
from latentry.data.pictures import data_uri, picture_uri
from latentry.errors import RunError
from latentry.evaluation.evaluate import confident_mistakes, first_of_each_class, load_predictions, pair_of
from latentry.evaluation.metrics import calibration_error, reliability
from latentry.evaluation.paired import compared
from latentry.inference import probabilities
from latentry.models.saved import load_config
from latentry.progress import console
from latentry.report import figures
from latentry.run import Run

NUM_RECONSTRUCTIONS = 20
CURVES = (
    ("pretrain", "loss", "Autoencoder: mean squared error"),
    ("pretrain", "psnr", "Autoencoder: PSNR in dB"),
    ("classify", "loss", "Classifier: loss"),
    ("classify", "accuracy", "Classifier: accuracy"),
)
"""Stage, quantity and title of the curves."""


def write_report(run: Run) -> Path:
    """Writes `report/index.html`, its charts as PNG beside it, and the model card; returns the page's path.

    Raises:
        RunError: the run is unfinished, damaged, or in use by another process.
    """
    try:
        with run.locked():
            return _write_report(run)
    except KeyError as error:
        raise RunError(f"{run.folder} is damaged: its results or predictions lack {error}; train again") from None


def _write_report(run: Run) -> Path:
    results = run.results()
    predictions = load_predictions(run)
    rows = run.metrics()
    if not rows:
        raise RunError(f"{run.metrics_file} is missing or empty: restore it or train again")
    part = best_known_part(results)
    with console.status("Writing the report"):
        charts = draw_charts(results, predictions, rows, part)
    for name, chart in charts.items():
        files.write_bytes(run.report_folder / f"{name}.png", chart.light)
    context: dict[str, Any] = {
        "results": results,
        "part": part,
        "scores": results[part] if part else None,
        "charts": {name: [data_uri(png) for png in chart] for name, chart in charts.items()},
        "samples": _samples(results, predictions),
        "recipe": run.recipe_file.read_text(encoding="utf-8"),
        "labels": run.recipe().data.labels,
        "minutes": sum(results["seconds"].values()) / 60,
        "network": results["network"],
        "rebalanced": run.recipe().rebalances,
        "control": against_control(run),
    }
    if part:
        pairs = _pairs(predictions, part) if results["trained_decoder"] else []
        if pairs:
            images, rebuilt = (np.stack(pictures) for pictures in zip(*pairs, strict=True))
            files.write_bytes(run.report_folder / "reconstructions.png", figures.sheet([images, rebuilt]))
        context |= {
            "reconstructions": [_reconstruction(*pair) for pair in pairs],
            "calibration_errors": [
                calibration_error(predictions[f"{part}_labels"], chances)
                for chances in _calibration(results, predictions, part).values()
            ],
            "mistakes": _mistakes(results, predictions, part) if results["trained_classifier"] else [],
        }
    if run.model_folder.exists():
        files.write_text(run.model_folder / "README.md", model_card(run))
    files.write_text(run.report_file, render("report.html", context))  # last: all the rest is as new as it
    return run.report_file


def is_current(run: Run) -> bool:
    """Whether the page is there, and no older than the results that it shows."""
    shown = [path.stat().st_mtime for path in (run.results_file, run.control.results_file) if path.exists()]
    return run.report_file.exists() and run.report_file.stat().st_mtime >= max(shown)


def model_card(run: Run) -> str:
    """What `model/` says of itself on the Hub, as Markdown."""
    results = run.results()
    part = best_known_part(results)
    config = load_config(run.model_folder)
    context = {
        "results": results,
        "config": config,
        "rebalanced": config.trained_shares not in ((), config.class_shares),
        "part": part,
        "scores": results[part] if part else None,
        "percent": lambda share: f"{100 * share:.1f} %",
    }
    return render("card.md", context) + "\n"


def draw_charts(
    results: dict[str, Any], predictions: dict[str, np.ndarray], rows: list[dict[str, Any]], part: str | None
) -> dict[str, figures.Chart]:
    """The report's charts by name; `part` is the split whose predictions are shown."""
    charts = {"class-counts": figures.class_counts(_counts(results, predictions))}
    for stage, quantity, title in CURVES:
        if any(row["stage"] == stage and row[f"train_{quantity}"] is not None for row in rows):
            charts[f"{stage}-{quantity}"] = figures.curve(rows, stage, quantity, title)
    if part:
        names = list(results["train_images"])
        latents, labels = predictions[f"{part}_latents"], predictions[f"{part}_labels"]
        if results["trained_classifier"]:
            charts["confusion"] = figures.confusion(results[part]["confusion_matrix"], names)
            charts["calibration"] = figures.calibration(
                {
                    name: reliability(labels, chances)
                    for name, chances in _calibration(results, predictions, part).items()
                }
            )
        charts["latent"] = figures.latent_map(latents, labels, names, results["seed"])
    return charts


def best_known_part(results: dict[str, Any]) -> str | None:
    """ "test" where it was opened, else "validation" where there is one."""
    return next((part for part in ("test", "validation") if results[part] is not None), None)


def _calibration(results: dict[str, Any], predictions: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """Probabilities (N, K) before and after calibration."""
    logits = predictions[f"{part}_logits"]
    return {"before": probabilities(logits, 1.0), "after": probabilities(logits, results["temperature"])}


def _counts(results: dict[str, Any], predictions: dict[str, np.ndarray]) -> dict[str, dict[str, int]]:
    counts = {"train": results["train_images"]}
    for part in ("validation", "test"):
        if results[part] is not None:
            totals = np.bincount(predictions[f"{part}_labels"], minlength=len(counts["train"])).tolist()
            counts[part] = dict(zip(counts["train"], totals, strict=True))
    return counts


def against_control(run: Run) -> dict[str, Any] | None:
    """What a report says of the run's control, where there is one that was asked the same images."""
    results = run.results()
    part = best_known_part(results)
    if part is None or not run.control.results_file.exists():
        return None
    sides = [results, run.control.results()]
    if sides[1][part] is None:
        return None
    names = (results["recipe"], sides[1]["recipe"])
    content = compared([pair_of(run, run.control, part)], tuple(results["train_images"]), names, part)
    content["sides"] = [
        {
            "name": side["recipe"],
            "scores": side[part],
            "flops": side["flops"]["pretrain"] + side["flops"]["classify"],
            "seconds": side["seconds"]["pretrain"] + side["seconds"]["classify"],
        }
        for side in sides
    ]
    return content


def _samples(results: dict[str, Any], predictions: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    names = list(results["train_images"])
    return [
        {"uri": picture_uri(image), "caption": names[label]}
        for image, label in zip(predictions["train_example_images"], predictions["train_example_labels"], strict=True)
    ]


def _pairs(predictions: dict[str, np.ndarray], part: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Image and reconstruction of the first example of each class."""
    places = _places(predictions, part)
    firsts = first_of_each_class(predictions[f"{part}_labels"], 1)[:NUM_RECONSTRUCTIONS].tolist()
    images, reconstructions = (predictions[f"{part}_example_{what}"] for what in ("images", "reconstructions"))
    return [(images[places[position]], reconstructions[places[position]]) for position in firsts]


def _reconstruction(image: np.ndarray, reconstruction: np.ndarray) -> dict[str, Any]:
    error = np.square((image.astype(float) - reconstruction) / 255).mean()
    return {
        "original": picture_uri(image),
        "reconstruction": picture_uri(reconstruction),
        "psnr": -10 * np.log10(max(error, 1e-10)),
    }


def _places(predictions: dict[str, np.ndarray], part: str) -> dict[int, int]:
    """Position in a part to the place of its picture among the part's examples."""
    return {position: place for place, position in enumerate(predictions[f"{part}_example_positions"].tolist())}


def _mistakes(results: dict[str, Any], predictions: dict[str, np.ndarray], part: str) -> list[dict[str, Any]]:
    names = list(results["train_images"])
    logits, labels = predictions[f"{part}_logits"], predictions[f"{part}_labels"]
    chances = probabilities(logits, results["temperature"])
    places = _places(predictions, part)
    mistakes = [
        {
            "uri": picture_uri(predictions[f"{part}_example_images"][places[position]]),
            "truth": names[labels[position]],
            "prediction": names[chances[position].argmax()],
            "confidence": chances[position].max(),
        }
        for position in confident_mistakes(logits, labels).tolist()
    ]
    return sorted(mistakes, key=lambda mistake: -mistake["confidence"])


def render(template: str, context: dict[str, Any]) -> str:
    """A page of this room, filled in."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("latentry", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(context)
