"""The training images whose latents are nearest to a new image's."""

import dataclasses
from pathlib import Path

import numpy as np

from latentry import files
from latentry.data import load_train
from latentry.data.imageset import UNLABELLED, ImageSet
from latentry.data.split import Split
from latentry.deploy.predictor import Predictor
from latentry.errors import LatentryError, RunError
from latentry.evaluation.similar import NUM_FITTED, Projection
from latentry.progress import console
from latentry.run import Run


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The training images of a run, by place in the principal components of their latents.

    Attributes:
        images: those that the run could train on.
        indices: int64 (M,), which of them it did train on, those without labels last.
        projection: from latents to components.
        points: float32 (M, D).
    """

    images: ImageSet
    indices: np.ndarray
    projection: Projection
    points: np.ndarray

    def class_name(self, index: int) -> str:
        """Of the image at `index`; "" where it has no label."""
        label = self.images.labels[index]
        return "" if label == UNLABELLED else self.images.class_names[label]

    def nearest(self, latents: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices into `images` and distances, both (N, count), of the nearest to latents (N, c, h, w), in order."""
        asked = self.projection(latents)
        squares = np.square(self.points).sum(axis=1) - 2 * asked @ self.points.T
        squares += np.square(asked).sum(axis=1, keepdims=True)
        count = min(count, len(self.points))
        places = np.argpartition(squares, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(squares, places, axis=1), axis=1, kind="stable")
        places = np.take_along_axis(places, order, axis=1)
        return self.indices[places], np.sqrt(np.maximum(np.take_along_axis(squares, places, axis=1), 0.0))


def neighbours_at_hand(folder: Path, predictor: Predictor) -> Neighbours | None:
    """Those of the run in `folder`; None, with the reason on the console, where its training images aren't at hand."""
    try:
        return neighbours_of(Run.open(folder), predictor)
    except LatentryError as error:
        console.print(f"without neighbours: {error}", style="yellow", soft_wrap=True)
        return None


def neighbours_of(run: Run, predictor: Predictor) -> Neighbours:
    """The training images of `run`, by the latents that `predictor` gives them; kept in `neighbours.npz` of its folder.

    Raises:
        LatentryError: the images are gone, or others.
    """
    images = load_train(run.recipe().data)
    results = run.results()
    if images.sha256 != results["dataset_sha256"]:
        raise RunError(f"the images that {run.folder} was trained on have changed: restore them")
    split = Split.from_json(files.read_json(run.split_file))
    indices = np.concatenate([split.train, split.unlabelled])
    if not run.neighbours_file.exists():
        _write(run.neighbours_file, images, indices, predictor)
    try:
        with np.load(run.neighbours_file, allow_pickle=False) as content:
            projection = Projection(content["mean"], content["components"])
            points = content["points"]
        intact = len(points) == len(indices) and points.shape[1] == len(projection.components)
    except Exception:  # noqa: BLE001 - zipfile, zlib and NumPy raise half a dozen kinds on a damaged file
        intact = False
    if not intact:
        raise RunError(f"{run.neighbours_file} is damaged: remove it, and it is made again")
    return Neighbours(images, indices, projection, points)


def _write(file: Path, images: ImageSet, indices: np.ndarray, predictor: Predictor) -> None:
    fitted = np.sort(np.random.default_rng(0).permutation(indices)[:NUM_FITTED])
    asked = predictor.answers(images.images, fitted, "Finding components", decode=False)
    projection = Projection.fit(np.concatenate([answer.latents for _, answer in asked]))
    points = np.empty((len(indices), len(projection.components)), dtype=np.float32)
    for some, answer in predictor.answers(images.images, indices, "Placing training images", decode=False):
        points[some] = projection(answer.latents)
    with files.replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, mean=projection.mean, components=projection.components, points=points)
