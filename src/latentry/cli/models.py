"""Commands that put a finished model to work."""

import io
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from latentry.cli.options import DeviceOption, PriorOption, parse_prior
from latentry.errors import RecipeError


def predict_images(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of its model.")],
    source: Annotated[str, typer.Argument(help="An image, a folder of them, or - for names on standard input.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name, the likeliest first.")] = 1,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    prior: PriorOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Say of each image which class it is, how sure that is, and whether it looks like the training images."""
    from latentry.deploy import predict
    from latentry.deploy.predictor import Predictor
    from latentry.progress import warn

    if as_csv and as_json:
        raise RecipeError("--csv and --json are two forms: give one of them")
    predictor = Predictor.load(run, prior=parse_prior(prior or ""), device=device)
    top = min(top, len(predictor.config.class_names))
    rows = predict.predictions(predictor, predict.pictures_of(source, predictor.config.image_size), top)
    form = "csv" if as_csv else "json" if as_json else "text"
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # the name of a file may be any bytes
    count, failed = predict.write_rows(rows, form, top, sys.stdout)
    if failed:
        warn(f"{failed:,} of {count:,} images can't be read")


def embed_images(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of its model.")],
    folder: Annotated[Path, typer.Argument(help="A folder of images, at any depth.")],
    out: Annotated[Path, typer.Option(help="The .npz to write.")] = Path("latents.npz"),
    device: DeviceOption = "auto",
) -> None:
    """Write the latents of a folder's images, and their names, to an .npz file."""
    from latentry.deploy.predict import embed
    from latentry.deploy.predictor import Predictor
    from latentry.progress import warn

    if out.suffix != ".npz":
        raise RecipeError(f"--out {out} is not the name of an .npz file: give one, such as latents.npz")
    count, problems = embed(Predictor.load(run, device=device), folder, out)
    for file, reason in problems:
        warn(f"{file} is left out: {reason}")
    print(f"{count:,} latents: {out}")


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


def serve_run(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of its model.")],
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    token: Annotated[
        str, typer.Option(envvar="LATENTRY_TOKEN", help="What clients must send as a bearer token; default none.")
    ] = "",
    neighbours: Annotated[
        bool,
        typer.Option("--neighbours/--no-neighbours", help="Show the nearest training images, if they are there."),
    ] = True,
    views: Annotated[
        Literal["1", "2", "6"] | None, typer.Option(help="Of each image, as evaluate.views; default as trained.")
    ] = None,
    prior: PriorOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Answer over HTTP: a page at /, /predict, /reconstruct and /neighbours for programs."""
    from latentry.deploy.extras import extra

    for package in ("fastapi", "uvicorn"):
        extra("serve", package)

    from latentry.deploy import listening, serve
    from latentry.deploy.neighbours import neighbours_at_hand
    from latentry.deploy.predictor import Predictor
    from latentry.progress import say, warn

    listening.check_token(token)
    predictor = Predictor.load(
        run, prior=parse_prior(prior or ""), device=device, views=None if views is None else int(views)
    )
    bound = listening.listen(host, port)
    found = neighbours_at_hand(run, predictor) if neighbours else None
    hosts = listening.local_names(bound)
    if not hosts and not token:
        warn("whoever reaches this machine can ask: LATENTRY_TOKEN keeps others out")
    say(f"serving {run} at {listening.address_of(bound)}; Ctrl-C stops it")
    listening.run(serve.create_app(predictor, found, token=token, hosts=hosts), bound)
