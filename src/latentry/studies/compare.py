"""Is one way of training better than another? Pairs of runs by seed, at equal cost, with intervals and a verdict."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from latentry import files
from latentry.data import check_test, load_train
from latentry.data.split import make_split
from latentry.errors import Interrupted, RecipeError, RunError
from latentry.evaluation.evaluate import evaluate, pair_of
from latentry.evaluation.paired import compared, interval
from latentry.pipeline import at_cost, resolved, resume, train, unpretrained
from latentry.progress import console
from latentry.recipe import Recipe
from latentry.run import Run
from latentry.training.job import Job

Budget = Literal["flops", "epochs", "as run"]
COST_TOLERANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Share:
    """The pairs of runs, by seed, that were given this share of the labels."""

    labels: float
    pairs: list[tuple[Run, Run]]


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
    recipes = matched(first, second or unpretrained(first), budget)
    part = _part(recipes, test=test)
    if test:
        for recipe in recipes:
            check_test(recipe.data)
    shares = []
    with _stopped_comparisons_continue():
        for fraction in sorted(labels):
            pairs = []
            for seed in range(num_seeds):
                left, right = (_obtained(_varied(recipe, seed, fraction), folder / "runs") for recipe in recipes)
                pairs.append((left, right))
            shares.append(Share(fraction, pairs))
        if part == "test":
            for run in (run for share in shares for pair in share.pairs for run in pair):
                evaluate(run)
    return result(shares, part, budget, (recipes[0].name, recipes[1].name))


def compare_runs(first: str, second: str, *, test: bool) -> dict[str, Any]:
    """Compares finished runs: each of the two is a run's folder, or a pattern of several, paired by seed.

    Raises:
        RunError: a run is unfinished, has no partner of the same seed and split, or has no predictions to compare.
    """
    sides = [[Run.open(folder) for folder in folders_of(pattern)] for pattern in (first, second)]
    partners: dict[tuple[int, str], Run] = {}
    for run in sides[1]:
        partners[_key(run)] = run
    if len(partners) < len(sides[1]):
        raise RunError(f"{second}: two of its runs have the same seed and split, and one is wanted: name the others")
    pairs = []
    for run in sides[0]:
        if _key(run) not in partners:
            raise RunError(f"{run.folder} (seed {_key(run)[0]}) has no partner of its seed and split among {second}")
        pairs.append((run, partners[_key(run)]))
    names = (pairs[0][0].results()["recipe"], pairs[0][1].results()["recipe"])
    part = _part([run.recipe() for pair in pairs for run in pair], test=test)
    if part == "test":
        for run in (run for pair in pairs for run in pair):
            evaluate(run)
    return result([Share(1.0, pairs)], part, "as run", names)


def matched(first: Recipe, second: Recipe, budget: Budget) -> tuple[Recipe, Recipe]:
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
    images = load_train(first.data)
    split = make_split(images, first.data)
    jobs = [Job(recipe, images, split) for recipe in (first, second)]
    if budget == "flops":
        totals = [sum(job.planned_flops().values()) for job in jobs]
        dearest = max(totals)
        first, second = (
            at_cost(job, dearest) if total < dearest else job.recipe for job, total in zip(jobs, totals, strict=True)
        )
    return first, second


def result(shares: list[Share], part: str, budget: Budget, names: tuple[str, str]) -> dict[str, Any]:
    """What `comparison.json` holds; its top level is about the largest share of the labels."""
    by_share = [_compared(share, part, names) for share in shares]
    costs = [_cost(name, [pair[side] for pair in shares[-1].pairs]) for side, name in enumerate(names)]
    low, high = sorted(cost["flops"] for cost in costs)
    note = ""
    if high > (1 + COST_TOLERANCE) * low:
        spent = ", ".join(f"{cost['name']} {cost['flops'] / 1e15:.3g} PFLOP" for cost in costs)
        note = f"The runs did not cost the same: {spent}."
        if budget == "flops":
            note += " They were planned alike, to the nearest whole epoch; early stopping may have ended one sooner."
        else:
            note += " This comparison is descriptive: what is better may just have been given more."
    return by_share[-1] | {
        "names": list(names),
        "part": part,
        "budget": budget,
        "budget_note": note,
        "cost": costs,
        "labels": by_share,
    }


def save(content: dict[str, Any], folder: Path) -> None:
    """Writes `comparison.json`."""
    files.write_json(folder / "comparison.json", content)


def folders_of(pattern: str) -> list[Path]:
    """The run folders that a path, or a pattern such as `runs/quick-*`, names, sorted; none for a recipe's name."""
    path = Path(pattern)
    return sorted(folder for folder in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if folder.is_dir())


def _varied(recipe: Recipe, seed: int, labels: float) -> Recipe:
    data = recipe.data.model_copy(update={"labels": labels})
    return recipe.model_copy(update={"seed": seed, "data": data})


def _obtained(recipe: Recipe, parent: Path) -> Run:
    """The finished run of `recipe` under `parent`: as it is there, continued, or trained."""
    suffix = "" if recipe.data.labels == 1 else f"-labels-{recipe.data.labels:g}"
    folder = parent / f"{recipe.name}-{recipe.seed}{suffix}"
    if not (folder / "recipe.toml").exists():
        console.print(f"{folder.name}: training", soft_wrap=True)
        return train(recipe, folder)
    run = Run.open(folder)
    if run.recipe() != recipe:
        raise RunError(f"{folder} was trained with other settings: choose another --out, or remove it to repeat it")
    console.print(f"{folder.name}: {'done' if run.results_file.exists() else 'continuing'}", soft_wrap=True)
    return resume(folder)


@contextlib.contextmanager
def _stopped_comparisons_continue() -> Iterator[None]:
    try:
        yield
    except Interrupted as stopped:
        reason = str(stopped).partition(";")[0]
        raise Interrupted(f"{reason}; the same command continues the comparison") from None


def _part(recipes: tuple[Recipe, ...] | list[Recipe], *, test: bool) -> str:
    for recipe in recipes:
        if not test and recipe.data.standing == "all-train":
            raise RecipeError(
                f"{recipe.name} trains on every image and has none to validate on: give --test, or compare runs with "
                "--set data.standing=held-out"
            )
    return "test" if test else "validation"


def _key(run: Run) -> tuple[int, str]:
    results = run.results()
    if not results["trained_classifier"]:
        raise RunError(f"{run.folder} trained no classifier, so there is nothing to compare: name another run")
    return int(results["seed"]), str(results["split_sha256"])


def _compared(share: Share, part: str, names: tuple[str, str]) -> dict[str, Any]:
    class_names = tuple(share.pairs[0][0].results()["train_images"])
    content = compared([pair_of(*pair, part) for pair in share.pairs], class_names, names)
    sides = []
    for side, name in enumerate(names):
        accuracies = [pair[side].results()[part]["accuracy"] for pair in share.pairs]
        sides.append(
            {
                "name": name,
                "accuracies": accuracies,
                "accuracy": float(np.mean(accuracies)),
                "accuracy_interval": interval(accuracies),
            }
        )
    seeds = [pair[0].results()["seed"] for pair in share.pairs]
    return {"share": share.labels, "seeds": seeds, "sides": sides} | content


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
