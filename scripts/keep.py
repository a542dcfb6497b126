"""Keeps of finished runs what comparing them takes, small enough to commit: settings, results, and the logits.

    .venv/bin/python scripts/keep.py docs/results/pairs runs/quick-0 runs/quick-unpretrained-0

Each run becomes a folder of its name, and `latentry compare` says of the folders what it says of the runs. Paths in
their settings are written from the folder that this is run in.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from latentry import files
from latentry.errors import LatentryError, RunError
from latentry.evaluation.evaluate import load_predictions
from latentry.run import Run

PARTS = ("validation", "test")


def keep(run: Run, folder: Path) -> None:
    """Writes what is kept of `run` into `folder`.

    Raises:
        LatentryError: it isn't finished, or damaged.
    """
    kept = Run(folder)
    arrays = {name: array for part in PARTS for name, array in load_predictions(run, part).items()}
    with files.replacing(kept.predictions_file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    files.write_json(kept.results_file, run.results())
    files.write_text(kept.recipe_file, run.recipe().to_toml().replace(f"{Path.cwd()}/", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parent", type=Path, help="where the folders go")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    options = parser.parse_args()
    places: set[Path] = set()
    try:
        for folder in options.runs:
            run = Run.open(folder)
            run.results()
            place = Path(folder.parent.name, folder.name) if folder.name == "control" else Path(folder.name)
            if place in places:
                raise RunError(f"two of the runs are called {place}: rename the folder of one")
            places.add(place)
            if (options.parent / place).resolve() == folder.resolve():
                raise RunError(
                    f"{folder} would be kept in its own place, and lose what isn't kept: name another parent"
                )
            keep(run, options.parent / place)
    except LatentryError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
