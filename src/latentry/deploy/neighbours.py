"""The training images whose latents are nearest to a new image's."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from latentry import files
from latentry.data import load_train
from latentry.data.imageset import UNLABELLED, ImageSet
from latentry.data.split import Split
from latentry.deploy.predictor import Predictor
from latentry.errors import LatentryError, RunError
from latentry.evaluation.similar import Projection, num_fitted
from latentry.progress import warn
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

    @functools.cached_property
    def squares(self) -> np.ndarray:
        """Of the lengths of the points, float32 (M,)."""
        lengths: np.ndarray = np.square(self.points).sum(axis=1)
        return lengths

    def class_name(self, index: int) -> str:
        """Of the image at `index`; "" where it has no label."""
        label = self.images.labels[index]
        return "" if label == UNLABELLED else self.images.class_names[label]

    def nearest(self, latents: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices into `images` and distances, both (N, count), of the nearest to latents (N, c, h, w), in order."""
        asked = self.projection(latents)
        count = min(count, len(self.points))
        # By squares less what all have in common, which is fast; then the few that are chosen as exactly as can be.
        rough = self.squares - 2 * asked @ self.points.T
        places = np.argpartition(rough, count - 1, axis=1)[:, :count]
        distances = np.linalg.norm(self.points[places] - asked[:, None], axis=2)
        order = np.argsort(distances, axis=1, kind="stable")
        places = np.take_along_axis(places, order, axis=1)
        return self.indices[places], np.take_along_axis(distances, order, axis=1)


def neighbours_at_hand(folder: Path, predictor: Predictor) -> Neighbours | None:
    """Those of the run in `folder`; None, with the reason on the console, where its training images aren't at hand."""
    try:
        return neighbours_of(Run.open(folder), predictor)
    except LatentryError as error:
        warn(f"without neighbours: {error}")
        return None


def neighbours_of(run: Run, predictor: Predictor) -> Neighbours:
    """The training images of `run`, by the latents that `predictor` gives them; kept in `neighbours.npz` of its folder,
    and made again where that belongs to another model or is damaged.

    Raises:
        LatentryError: the images are gone, or others.
    """
    images = load_train(run.recipe().data)
    results = run.results()
    if images.sha256 != results["dataset_sha256"]:
        raise RunError(f"the images that {run.folder} was trained on have changed: restore them")
    split = Split.read(run.split_file)
    indices = np.concatenate([split.train, split.unlabelled])
    weights = (run.model_folder / "model.safetensors").read_bytes()
    belongs = files.sha256(split.sha256.encode(), weights)
    kept = _kept(run.neighbours_file, belongs, len(indices))
    if kept is None:
        kept = _placed(images, indices, predictor)
        try:
            with files.replacing(run.neighbours_file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, allow_pickle=False, belongs=np.array(belongs), **kept)
        except OSError as error:
            warn(f"neighbours are not kept for the next time: {error}")
    return Neighbours(images, indices, Projection(kept["mean"], kept["components"]), kept["points"])


def _kept(file: Path, belongs: str, count: int) -> dict[str, np.ndarray] | None:
    """What `file` holds of `count` images; None where it is missing, damaged, or of another model or split."""
    try:
        with np.load(file, allow_pickle=False) as content:
            whole = {name: content[name] for name in ("mean", "components", "points")}
            size, width = whole["points"].shape
            fits = (size, width, len(whole["mean"])) == (count, *whole["components"].shape)
            return whole if fits and content["belongs"].item() == belongs else None
    except Exception:  # noqa: BLE001 - zipfile, zlib and NumPy raise half a dozen kinds on a damaged file
        return None


def _placed(images: ImageSet, indices: np.ndarray, predictor: Predictor) -> dict[str, np.ndarray]:
    size = predictor.answer(images.images[indices[:1]], decode=False).latents.size
    fitted = np.sort(np.random.default_rng(0).permutation(indices)[: num_fitted(size)])
    asked = predictor.answers(images.images, fitted, "Finding components", decode=False)
    projection = Projection.fit(np.concatenate([answer.latents for _, answer in asked]))
    points = np.empty((len(indices), len(projection.components)), dtype=np.float32)
    for some, answer in predictor.answers(images.images, indices, "Placing training images", decode=False):
        points[some] = projection(answer.latents)
    return {"mean": projection.mean, "components": projection.components, "points": points}
