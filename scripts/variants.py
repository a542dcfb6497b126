"""One recipe trained in several ways that differ in one thing each, and what each comes to on validation images.

    .venv/bin/python scripts/variants.py imbalance flagship --seeds 3
    .venv/bin/python scripts/variants.py ablation flagship --seeds 2
    .venv/bin/python scripts/variants.py lengths flagship --seeds 1

Runs go to runs/STUDY-RECIPE/WAY-SEED; those that are done are not run again, and what was stopped continues when the
command is repeated. After every run docs/results/STUDY-RECIPE.json is written anew, and in the end its table printed;
lengths are drawn in docs/figures, too. Test images stay closed.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from latentry import files
from latentry.data import load_train
from latentry.data.split import make_split
from latentry.errors import LatentryError, RecipeError
from latentry.evaluation.evaluate import load_predictions
from latentry.evaluation.metrics import classification_metrics
from latentry.inference import log_ratio, probabilities
from latentry.models.saved import load_config
from latentry.pipeline import resolved
from latentry.recipe import load_recipe, parse_setting
from latentry.report.figures import Theme, draw
from latentry.run import Run
from latentry.studies.compare import check_reusable, obtained

MINUTES = (0.5, 1, 2, 5, 10, 30)
"""Where the axis of the curve has marks."""
PLAIN, AFTERWARDS = "as it is", "logits adjusted afterwards"
UNBALANCED: dict[str, Any] = {
    "batches.classify.balanced": False,
    "classify.class_weight": "none",
    "classify.class_weight_after": 0.0,
    "classify.logit_adjustment": 0.0,
}
"""Whatever the recipe does against imbalance, undone."""
STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    "imbalance": {
        PLAIN: UNBALANCED,
        AFTERWARDS: UNBALANCED,
        "oversampled": UNBALANCED | {"batches.classify.balanced": True},
        "classes weighted": UNBALANCED | {"classify.class_weight": "balanced"},
        "classes weighted late": UNBALANCED | {"classify.class_weight": "balanced", "classify.class_weight_after": 0.8},
        "logits adjusted by half": UNBALANCED | {"classify.logit_adjustment": 0.5},
        "balanced softmax": UNBALANCED | {"classify.logit_adjustment": 1.0},
    },
    "lengths": {f"{count} epoch{'s' * (count > 1)}": {"classify.max_epochs": count} for count in (1, 2, 4, 8)},
    "ablation": {
        PLAIN: {},
        "not pretrained": {"pretrain.max_epochs": 0},
        "pretrained on whole images": {"pretrain.mask": 0.0},
        "no reconstruction beside the labels": {"classify.reconstruction_weight": 0.0},
        "reconstruction weight 2": {"classify.reconstruction_weight": 2.0},
        "classified by Adam, rate 0.005": {"classify.optimizer": "adam", "classify.learning_rate": 5e-3},
        "flipped at random": {"batches.classify.flip": "random"},
        "no change of brightness and contrast": {"batches.classify.brightness": 0.0, "batches.classify.contrast": 0.0},
        "no label smoothing": {"classify.label_smoothing": 0.0},
        "logits not adjusted": {"classify.logit_adjustment": 0.0},
    },
}
"""Study to way of training to settings; `ablation` takes out what `flagship` has. Logits are adjusted afterwards in the
answers of the runs as they are."""


def scores(run: Run, *, adjusted: bool) -> dict[str, Any]:
    """What the validation images say; `adjusted` answers as if all classes were as frequent."""
    results = run.results()
    found, names = results["validation"], tuple(results["train_images"])
    if adjusted:
        arrays, config = load_predictions(run, "validation"), load_config(run.model_folder)
        ratio = log_ratio([1 / len(names)] * len(names), config.trained_shares)
        chances = probabilities(arrays["validation_logits"], results["temperature"], ratio)
        found = classification_metrics(arrays["validation_labels"], chances, names)
    counts = np.array(list(results["train_images"].values()))
    recalls = np.array([entry["recall"] for entry in found["per_class"]])
    return {
        "accuracy": found["accuracy"],
        "balanced_accuracy": found["balanced_accuracy"],
        "minority_recall": float(recalls[counts < counts.max()].mean()) if counts.min() < counts.max() else None,
        "macro_f1": found["macro_f1"],
        "ece": found["ece"],
        "psnr": results["validation"]["psnr"],
        "seconds": sum(results["seconds"][stage] for stage in ("pretrain", "classify")),
        "flops": results["flops"]["pretrain"] + results["flops"]["classify"],
    }


def spread(values: list[float], scale: float, digits: int) -> str:
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return mean + (f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def table(ways: dict[str, list[dict[str, Any]]]) -> str:
    """A row a way: mean and deviation of its seeds, mean operations and minutes of training."""
    lines = [
        "| | accuracy, % | mean recall, % | minority recall, % | macro F1 | calibration error | PFLOP | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in ways.items():
        columns = {key: [run[key] for run in runs] for key in runs[0]}
        minority = "" if None in columns["minority_recall"] else spread(columns["minority_recall"], 100, 1)
        parts = [name, spread(columns["accuracy"], 100, 2), spread(columns["balanced_accuracy"], 100, 2), minority]
        parts += [spread(columns["macro_f1"], 1, 3), spread(columns["ece"], 1, 3)]
        parts += [f"{statistics.mean(columns['flops']) / 1e15:.3f}", f"{statistics.mean(columns['seconds']) / 60:.1f}"]
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join(lines)


def curve(studies: list[Path]) -> bytes:
    """A PNG of accuracy against minutes of training, a line each of up to three studies of lengths."""

    def paint(axes: Axes, theme: Theme) -> None:
        for file, color in zip(studies, theme.series, strict=False):
            content = files.read_json(file)
            ways = [[(run["seconds"] / 60, 100 * run["accuracy"]) for run in runs] for runs in content["ways"].values()]
            minutes, accuracies = zip(*(np.mean(runs, axis=0) for runs in ways), strict=True)
            axes.plot(minutes, accuracies, "o-", color=color, label=content["recipe"])
        axes.set_xscale("log")
        axes.set_xticks(MINUTES, map(str, MINUTES))
        axes.minorticks_off()
        axes.set_xlabel("minutes of training", color=theme.text)
        axes.set_ylabel("validation accuracy, %", color=theme.text)
        axes.grid(color=theme.grid)
        axes.legend(frameon=False, labelcolor=theme.text)

    return draw(6, 4, paint).light


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("recipe", help="a recipe's name, or a TOML file")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each way")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="a setting of every run")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs go")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="where the numbers go")
    options = parser.parse_args()
    try:
        if options.seeds < 1:
            raise RecipeError(f"--seeds {options.seeds} makes no run: give 1 or more")
        common = dict(map(parse_setting, options.settings)) | {"data.standing": "held-out"}
        varied = sorted(common.keys() & {key for settings in STUDIES[options.study].values() for key in settings})
        if varied:
            raise RecipeError(f"--set {varied[0]} is what the ways of {options.study} differ in: leave it out")
        base = resolved(load_recipe(options.recipe, common))
        name, images = base.name, load_train(base.data)
        split = make_split(images, base.data)
        study, ways = f"{options.study}-{name}", STUDIES[options.study]
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for seed in range(options.seeds):
            for way, settings in ways.items():
                recipe = resolved(load_recipe(options.recipe, common | settings | {"seed": seed}))
                place = options.runs / study / f"{(PLAIN if way == AFTERWARDS else way).replace(' ', '-')}-{seed}"
                check_reusable(recipe, place, images, split)
                run = obtained(recipe, place)
                found[way].append(scores(run, adjusted=way == AFTERWARDS))
                content = {"recipe": name, "settings": common, "hardware": run.results()["hardware"]}
                done = {way: runs for way, runs in found.items() if runs}
                files.write_json(options.results / f"{study}.json", content | {"ways": done})
    except LatentryError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(130)
    print(table(found))
    if options.study == "lengths":
        studies = sorted(options.results.glob("lengths-*.json"))
        files.write_bytes(options.results.with_name("figures") / "lengths.png", curve(studies))


if __name__ == "__main__":
    main()
