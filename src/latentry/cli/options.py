"""Options that several commands share, and how their values are read."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from latentry.errors import RecipeError

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
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print results.json instead of text.")]


def data_changes(
    data: str | None, unlabelled: Path | None, group_column: str | None, image_size: int | None
) -> dict[str, Any]:
    """The settings that these options change."""
    changes = {
        "data.source": data,
        "data.unlabelled": str(unlabelled) if unlabelled else None,
        "data.group_column": group_column,
        "data.image_size": image_size,
    }
    return {key: value for key, value in changes.items() if value is not None}


def parse_limit(text: str) -> tuple[str, int]:
    """Splits CLASS=N into the name of the class and N."""
    name, _, number = text.rpartition("=")
    if not name or not number.isdecimal():
        raise RecipeError(f"--limit {text!r} is not of the form CLASS=N, such as bird=2500")
    return name, int(number)


def parse_prior(text: str) -> dict[str, float]:
    """Splits "bird=0.5,cat=0.1" into class names, which may hold commas, and shares."""
    prior, rest = {}, text.strip(",")
    while rest:
        found = re.match(r"(.+?)=([^=,]*)(?:,+|$)", rest, re.DOTALL)
        try:
            if found is None:
                raise ValueError
            prior[found[1]] = float(found[2])
        except ValueError:
            part = found[0].rstrip(",") if found else rest
            raise RecipeError(f"--prior {part!r} is not of the form CLASS=SHARE, such as bird=0.5") from None
        rest = rest[found.end() :]
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
