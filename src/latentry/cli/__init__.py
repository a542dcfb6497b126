"""The command line: arguments to a recipe, a recipe to one call. Heavy imports wait until a command runs."""

import errno
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from latentry import __version__
from latentry.cli import models, runs, studies
from latentry.errors import Interrupted, LatentryError
from latentry.processes import place

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Image classification that enters through an autoencoder's hidden layer.",
)
data_app = typer.Typer(help="Fetch and check a dataset.")
app.add_typer(data_app, name="data")
data_app.command("cifar10")(runs.fetch_cifar10)
app.command("recipes")(runs.show_recipes)
app.command("train")(runs.train_recipe)
app.command("compare")(studies.compare_two)
app.command("inspect")(studies.inspect_data)
app.command("evaluate")(runs.evaluate_run)
app.command("predict")(models.predict_images)
app.command("embed")(models.embed_images)
app.command("export")(models.export_run)
app.command("serve")(models.serve_run)
app.command("report")(runs.report_run)

USAGE_ERROR: Any = typer.BadParameter.__base__
"""What typer raises where the words of a command are off."""


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    if show or context.invoked_subcommand is None:
        print(__version__ if show else context.get_help())
        raise typer.Exit
    if place().world_size > 1 and context.invoked_subcommand != "train":
        raise LatentryError(
            f"{place().world_size} processes can share train alone: start {context.invoked_subcommand} as one"
        )


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
