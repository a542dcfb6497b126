"""Commands that take several trainings: a comparison, a look at a dataset."""

import json
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from latentry import files
from latentry.cli.options import (
    DataOption,
    GroupColumnOption,
    ImageSizeOption,
    LimitOption,
    SettingsOption,
    UnlabelledOption,
    data_changes,
    free_folder,
    parse_labels,
    parse_limit,
)
from latentry.errors import RecipeError


def compare_two(
    first: Annotated[str, typer.Argument(help="A recipe; or a finished run's folder, or a pattern: 'runs/quick-?'.")],
    second: Annotated[str | None, typer.Argument(help="Another of the same kind; default the first's control.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many pairs to train; default 5.")] = None,
    budget: Annotated[
        Literal["flops", "epochs"] | None,
        typer.Option(help="Equal operations in total (default), or each recipe's own epochs."),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Shares of the labels, as in 0.01,0.1,1; default 1.")] = None,
    settings: SettingsOption = None,
    data: DataOption = None,
    unlabelled: UnlabelledOption = None,
    group_column: GroupColumnOption = None,
    image_size: ImageSizeOption = None,
    limit: LimitOption = None,
    test: Annotated[bool, typer.Option("--test", help="Compare on the test set, opened after the last run.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder; default comparisons/FIRST-SECOND.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print comparison.json instead of text.")] = False,
) -> None:
    """Train two recipes in pairs by seed, or take finished runs, and say which is better."""
    from latentry.studies import compare

    changes = data_changes(data, unlabelled, group_column, image_size)
    if out is not None:
        files.check_ours(out, "comparison.json", "runs")
    if compare.names_runs(first):
        second = second or f"{first}/control"
        if not compare.names_runs(second):
            raise RecipeError(f"{first} names runs and {second} a recipe: name two of a kind")
        if seeds or budget or labels is not None or settings or changes or limit:
            raise RecipeError(f"{first} and {second} are runs: give only --test, --out and --json beside them")
        content = compare.compare_runs(first, second, test=test)
    else:
        from latentry.recipe import load_recipe, parse_setting

        changes |= dict(parse_setting(setting) for setting in settings or [])
        limits = dict(parse_limit(text) for text in limit or [])
        one = load_recipe(first, changes, limits)
        other = load_recipe(second, changes, limits) if second is not None else None
        out = out or Path("comparisons") / f"{one.name}-{other.name if other else 'control'}"
        content = compare.compare_recipes(
            one,
            other,
            out,
            num_seeds=seeds or 5,
            budget=budget or "flops",
            labels=parse_labels("1" if labels is None else labels),
            test=test,
        )

    from latentry.report.comparison import write_comparison

    folder = out or free_folder(Path("comparisons"), re.sub(r"[^\w.-]+", "-", "-".join(content["names"])))
    compare.save(content, folder)
    page = write_comparison(content, folder)
    print(json.dumps(content, indent=1) if as_json else f"\n{content['verdict']}\n\nreport: {page}")


def inspect_data(
    data: Annotated[str, typer.Argument(help="cifar10, a folder with one folder of images a class, or a CSV.")],
    unlabelled: UnlabelledOption = None,
    group_column: GroupColumnOption = None,
    image_size: ImageSizeOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the networks that look, and of the parts.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder; default inspections/DATA.")] = None,
) -> None:
    """Look at images before training: counts, near-duplicates, odd ones, labels that are likely wrong."""
    from latentry.recipe import load_recipe
    from latentry.studies import inspect

    recipe = load_recipe("quick", data_changes(data, unlabelled, group_column, image_size))
    if out is not None:
        files.check_ours(out, "inspection.json")
    inspection = inspect.inspect(recipe.data, seed=seed)

    from latentry.report.inspection import findings, write_inspection

    folder = out or free_folder(Path("inspections"), Path(data).resolve().stem or "data")
    inspect.save(inspection.content, folder)
    page = write_inspection(inspection.content, inspection.pictures, folder)
    print(f"\n{findings(inspection.content)}\n\nreport: {page}")
