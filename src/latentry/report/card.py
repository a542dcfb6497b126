"""The model card: what `model/` says of itself on the Hub, from `results.json`."""

from pathlib import Path

from latentry import files
from latentry.report.page import best_known_part, render
from latentry.run import Run
from latentry.training.checkpoint import ModelConfig


def write_card(run: Run) -> Path:
    """Writes `model/README.md`; returns its path.

    Raises:
        RunError: the run is unfinished or damaged.
    """
    results = run.results()
    part = best_known_part(results)
    config = ModelConfig.model_validate(files.read_json(run.model_folder / "config.json"))
    context = {
        "results": {"unlabelled_images": 0} | results,
        "config": config,
        "names": config.class_names,
        "part": part,
        "scores": results[part] if part else None,
        "percent": lambda share: f"{100 * share:.1f} %",
    }
    card = run.model_folder / "README.md"
    files.write_text(card, render("card.md", context) + "\n")
    return card
