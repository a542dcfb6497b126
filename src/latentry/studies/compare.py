"""Is one way of training better than another? Pairs of runs by seed, at equal cost, with intervals and a verdict."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from latentry import files
from latentry.data import check_test, load_train
from latentry.data.imageset import ImageSet
from latentry.data.split import Split, make_split
from latentry.errors import RecipeError, RunError, continued_with
from latentry.evaluation.calibration import borrowed_calibration
from latentry.evaluation.evaluate import evaluate, pair_of
from latentry.evaluation.paired import compared, interval
from latentry.pipeline import at_cost, check_same_images, resolved, resume, train, unpretrained
from latentry.progress import say
from latentry.recipe import Recipe
from latentry.report.page import write_report
from latentry.run import Run
from latentry.training.job import Job

RunPair = tuple[Run, Run]
Budget = Literal["flops", "epochs", "as run"]
COST_TOLERANCE = 0.05


def compare_recipes(
    first: Recipe,
    second: Recipe | None,
    folder: Path,
    *,
    num_seeds: int,
    budget: Budget,
    labels: list[float],
    test: bool,
) -> dict[str, Any]:
    """Trains both recipes with seeds 0, 1, ... in turn, as far as `folder` doesn't hold those runs, and compares them.

    Without a `second` the first is compared with its control. With the budget "flops" the cheaper of the two is given
    more epochs of classifying, until both cost the same. The test sets are opened after the last run is trained.

    Raises:
        LatentryError: of whichever kind tells what to mend, before anything is trained where that can be.
    """
    if num_seeds < 1 or not labels:
        raise RecipeError(f"{num_seeds} seeds and the shares {labels} of the labels leave nothing to train: give one")
    if not all(0 < share <= 1 for share in labels):
        raise RecipeError(f"the shares {labels} of the labels are not all above 0 and up to 1: give some as in 0.01, 1")
    images = load_train(first.data)
    split = make_split(images, first.data)
    recipes = matched(first, second or unpretrained(first), images, split, budget)
    part = _part(recipes, test=test)
    if test:
        check_test(first.data)
    planned = [
        [tuple(_varied(recipe, seed, share) for recipe in recipes) for seed in range(num_seeds)]
        for share in sorted(set(labels))
    ]
    for recipe in (recipe for pairs in planned for pair in pairs for recipe in pair):
        check_reusable(recipe, _place(recipe, folder), images, split)
        if recipe.evaluate.temperature_from:
            borrowed_calibration(recipe, images)
    with continued_with("the same command"):
        shares = [
            [(obtained(left, _place(left, folder)), obtained(right, _place(right, folder))) for left, right in pairs]
            for pairs in planned
        ]
        if part == "test":
            for run in (run for pairs in shares for pair in pairs for run in pair):
                _open_test(run)
    return result(shares, part, budget, (recipes[0].name, recipes[1].name))


def compare_runs(first: str, second: str, *, test: bool) -> dict[str, Any]:
    """Compares finished runs: each of the two is a run's folder, or a pattern of several, paired by seed and split.

    Raises:
        RunError: a run is unfinished, or they can't be paired one to one.
    """
    left, right = _by_key(first), _by_key(second)
    if {run.folder.resolve() for run in left.values()} & {run.folder.resolve() for run in right.values()}:
        raise RunError(f"{first} and {second} name the same runs: name two")
    for runs, others, pattern in ((left, right, second), (right, left, first)):
        for key, run in runs.items():
            if key not in others:
                raise RunError(f"{run.folder} (seed {key[0]}) has no partner of its seed, data and split in {pattern}")
    pairs = [(run, right[key]) for key, run in sorted(left.items(), key=lambda item: item[0][0])]
    part = _part([run.recipe() for pair in pairs for run in pair], test=test)
    names = (pairs[0][0].recipe().name, pairs[0][1].recipe().name)
    if names[0] == names[1]:
        names = (first, second)
    if part == "test":
        for run in (run for pair in pairs for run in pair):
            _open_test(run)
    return result([pairs], part, "as run", names)


def _open_test(run: Run) -> None:
    """Evaluates `run`; its page and its model card, where there are some, no longer say that the test is closed."""
    was_open = run.results()["test"] is not None
    evaluate(run)
    if run.report_file.exists() and not was_open:
        write_report(run)


def matched(first: Recipe, second: Recipe, images: ImageSet, split: Split, budget: Budget) -> tuple[Recipe, Recipe]:
    """Both recipes as they will be trained, resolved, the cheaper one longer where the budget is "flops".

    Raises:
        RecipeError: they can't be compared: same name, other data or standing, or no classifier.
    """
    first, second = resolved(first), resolved(second)
    if first.name == second.name:
        raise RecipeError(f"both recipes are called {first.name!r}: give the second another name, as a TOML file")
    if first.data != second.data:
        differing = [key for key, value in first.data if value != getattr(second.data, key)]
        raise RecipeError(
            f"{first.name} and {second.name} differ in data.{differing[0]}, so they share no split: give both the same "
            f"with --set data.{differing[0]}=VALUE"
        )
    for recipe in (first, second):
        if not recipe.classify.max_epochs:
            raise RecipeError(f"{recipe.name} trains no classifier, so there is nothing to compare: name another")
        if recipe.data.labels != 1 or recipe.seed:
            raise RecipeError(
                f"{recipe.name} sets data.labels = {recipe.data.labels:g} and seed = {recipe.seed}, which a comparison "
                "chooses: use --labels and --seeds instead"
            )
    jobs = [Job(recipe, images, split) for recipe in (first, second)]
    if budget == "flops":
        totals = [sum(job.planned_flops().values()) for job in jobs]
        dearest = max(totals)
        first, second = (
            at_cost(job, dearest) if total < dearest else job.recipe for job, total in zip(jobs, totals, strict=True)
        )
    return first, second


def result(shares: list[list[RunPair]], part: str, budget: Budget, names: tuple[str, str]) -> dict[str, Any]:
    """What `comparison.json` holds, of pairs by share of the labels; its top level is about the largest share."""
    by_share = [_compared(pairs, part, budget, names) for pairs in shares]
    return by_share[-1] | {"part": part, "budget": budget, "labels": by_share}


def save(content: dict[str, Any], folder: Path) -> None:
    """Writes `comparison.json`."""
    files.write_json(folder / "comparison.json", content)


def folders_of(pattern: str) -> list[Path]:
    """The run folders that a path, or a pattern such as `runs/quick-?`, names, sorted; none for a recipe's name."""
    path = Path(pattern)
    if path.is_dir():
        return [path] if (path / "recipe.toml").exists() else []
    try:
        found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        return sorted(folder for folder in found if (folder / "recipe.toml").exists())
    except ValueError:
        return []


def names_runs(argument: str) -> bool:
    """Whether a command's argument means runs, there or not, rather than a recipe."""
    return bool(folders_of(argument)) or ("/" in argument and not argument.endswith(".toml"))


def _varied(recipe: Recipe, seed: int, labels: float) -> Recipe:
    return recipe.changed({"seed": seed, "data.labels": labels, "control": False})


def _place(recipe: Recipe, folder: Path) -> Path:
    suffix = "" if recipe.data.labels == 1 else f"-labels-{recipe.data.labels:g}"
    return folder / "runs" / f"{recipe.name}-{recipe.seed}{suffix}"


def check_reusable(recipe: Recipe, place: Path, images: ImageSet, split: Split) -> None:
    """Makes sure that a resolved recipe can be trained, continued or taken as it is in the folder `place`.

    Raises:
        RunError: what is there is no run, or one of other settings or images.
    """
    if not (place / "recipe.toml").exists():
        Run.check_free(place)
        return
    run = Run.open(place)
    if run.recipe() != recipe:
        raise RunError(f"{place} was trained with other settings: choose another folder, or remove it to repeat it")
    if run.results_file.exists():
        check_same_images(run, images, split)


def obtained(recipe: Recipe, place: Path) -> Run:
    """The finished run of a resolved recipe in the folder `place`: as it is there, continued, or trained."""
    run = Run(place)
    state = "done" if run.results_file.exists() else "continuing" if run.recipe_file.exists() else "training"
    say(f"{place.name}: {state}")
    return train(recipe, place) if state == "training" else resume(place)


def _part(recipes: Iterable[Recipe], *, test: bool) -> str:
    for recipe in recipes:
        if not test and recipe.data.standing == "all-train":
            raise RecipeError(
                f"{recipe.name} trains on every image and has none to validate on: give --test, or compare runs with "
                "--set data.standing=held-out"
            )
    return "test" if test else "validation"


def _by_key(pattern: str) -> dict[tuple[int, str, str], Run]:
    """The finished runs of one side, by what their partners must share."""
    runs: dict[tuple[int, str, str], Run] = {}
    way = data = None
    for folder in folders_of(pattern):
        run = Run.open(folder)
        results = run.results()
        if not results["trained_classifier"]:
            raise RunError(f"{run.folder} trained no classifier, so there is nothing to compare: name another run")
        way = way or _way(run)
        if _way(run) != way:
            raise RunError(f"{pattern} names runs of several recipes or settings: narrow it to one way of training")
        data = data or results["dataset_sha256"]
        if results["dataset_sha256"] != data:
            raise RunError(f"{pattern} names runs on different images: narrow it to those of one dataset")
        key = (results["seed"], data, results["split_sha256"])
        if key in runs:
            raise RunError(f"{runs[key].folder} and {folder} have the same seed and split: narrow {pattern} to one")
        runs[key] = run
    if not runs:
        raise RunError(f"there is no run at {pattern}: name a run's folder, or a pattern of several")
    return runs


def _way(run: Run) -> Recipe:
    """What the runs of one side share: their recipe but for the seed, the fold, and where things lie.

    A control's epochs follow from what the run beside it cost, so they may differ too.
    """
    recipe = run.recipe()
    if run.folder.name == "control":
        recipe = recipe.changed({"classify.max_epochs": 1})
    return recipe.changed(
        {
            "seed": 0,
            "control": False,
            "description": "",
            "data.fold": 0,
            "data.source": "",
            "data.unlabelled": "given" if recipe.data.unlabelled else "",
            "pretrain.encoder_from": "given" if recipe.pretrain.encoder_from else "",
            "evaluate.temperature_from": "",
        }
    )


def _compared(pairs: list[RunPair], part: str, budget: Budget, names: tuple[str, str]) -> dict[str, Any]:
    results = [[run.results() for run in side] for side in zip(*pairs, strict=True)]
    class_names = tuple(results[0][0]["train_images"])
    content = compared([pair_of(*pair, part) for pair in pairs], class_names, names, part)
    sides = []
    for side, name in enumerate(names):
        accuracies = [one[part]["accuracy"] for one in results[side]]
        sides.append(
            {
                "name": name,
                "accuracies": accuracies,
                "accuracy": float(np.mean(accuracies)),
                "accuracy_interval": interval(accuracies),
            }
        )
    cost = [_cost(name, [pair[side] for pair in pairs]) for side, name in enumerate(names)]
    notes = _notes(pairs, cost, budget)
    return (
        {"share": pairs[0][0].recipe().data.labels, "names": list(names), "seeds": [one["seed"] for one in results[0]]}
        | {"sides": sides, "cost": cost, "notes": notes}
        | content
        | {"verdict": " ".join([content["verdict"], *notes])}
    )


def _notes(pairs: list[RunPair], cost: list[dict[str, Any]], budget: Budget) -> list[str]:
    """What a reader of the verdict must know besides."""
    notes = []
    low, high = sorted(side["flops"] for side in cost)
    if high > (1 + COST_TOLERANCE) * low:
        spent = " and ".join(f"{side['name']} {side['flops'] / 1e15:.3g} PFLOP" for side in cost)
        if budget == "flops":
            why = "planned alike, to the nearest whole epoch"
            recipes = [run.recipe() for run in pairs[0]]
            if any(stage.early_stopping_patience for recipe in recipes for stage in (recipe.pretrain, recipe.classify)):
                why += "; early stopping may have ended one sooner"
        else:
            why = "what is better may just have been given more"
        notes.append(f"Descriptive: they did not cost the same, {spent} ({why}).")
    shares = [run.recipe().data.labels for run in pairs[0]]
    if min(shares) < 1:
        numbers = [run.results()["labelled_images"] for run in pairs[0]]
        given = " and ".join(
            f"{side['name']} {100 * share:g} %" + (f" ({number:,} images)" if number is not None else "")
            for side, number, share in zip(cost, numbers, shares, strict=True)
        )
        notes.append(f"Labels given: {given}.")
    if len({one.results()["split_sha256"] for one, _ in pairs}) > 1:
        notes.append("Pairs of several folds: their training images overlap, so the interval is somewhat too narrow.")
    lenders = [{run.recipe().pretrain.encoder_from for run in side} for side in zip(*pairs, strict=True)]
    if len(pairs) > 1 and any(len(side) == 1 and side != {""} for side in lenders):
        notes.append(
            "All seeds read one pretrained encoder, so the interval covers what follows pretraining, not pretraining."
        )
    return notes


def _cost(name: str, runs: list[Run]) -> dict[str, Any]:
    results = [run.results() for run in runs]

    def mean(quantity: str) -> float:
        return float(np.mean([one[quantity]["pretrain"] + one[quantity]["classify"] for one in results]))

    return {
        "name": name,
        "epochs": {stage: getattr(runs[0].recipe(), stage).max_epochs for stage in ("pretrain", "classify")},
        "seconds": mean("seconds"),
        "flops": mean("flops"),
        "inference_flops_per_image": results[0]["flops"]["inference_per_image"],
    }
