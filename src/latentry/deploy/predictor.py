"""A trained model, asked about new images: how likely each class is, and whether they look like the training images."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from huggingface_hub import ModelHubMixin, snapshot_download

from latentry import files
from latentry.errors import RecipeError, RunError
from latentry.inference import answers, log_ratio, probabilities
from latentry.models.network import AutoencoderClassifier
from latentry.models.saved import ModelConfig, load_model, save_model
from latentry.progress import track
from latentry.run import Run
from latentry.runtime import resolve_device, resolve_precision

PRIOR_TOLERANCE = 1e-6
PIXELS_AT_ONCE = 1_000 * 32 * 32


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model says of N images.

    Attributes:
        probabilities: float64, shape (N, K).
        latents: float32, shape (N, c, h, w).
        reconstructions: float32, shape (N, 3, S, S), in [0, 1]; none where they weren't asked for.
        errors: float64, shape (N,), mean squared error of the reconstruction, of pixels in [0, 1]; none where nothing
            was decoded.
    """

    probabilities: np.ndarray
    latents: np.ndarray
    reconstructions: np.ndarray
    errors: np.ndarray

    def part(self, some: slice) -> "Answer":
        """What it is of some of the images."""
        return Answer(self.probabilities[some], self.latents[some], self.reconstructions[some], self.errors[some])


class Predictor(ModelHubMixin):
    """A network and what was learned of it on validation images.

    Probabilities are calibrated by the model's temperature, and are those of a world in which classes are as frequent
    as among the training images, whatever rebalancing it was trained with; or as `prior` says (class name to share;
    classes that it doesn't name divide what is left as in training).

    `from_pretrained`, `save_pretrained` and `push_to_hub` are the Hugging Face Hub's; a folder is read without network,
    recipes or pickle.

    Raises:
        RecipeError: the prior names an unknown class, or its shares are no shares.
    """

    def __init__(
        self,
        network: AutoencoderClassifier,
        config: ModelConfig,
        *,
        prior: dict[str, float] | None = None,
        device: str = "auto",
        precision: Literal["auto", "bf16", "fp32"] = "auto",
    ) -> None:
        self.config = config
        self.card = ""
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.network = network.to(self.device).eval()
        if prior and not config.trained_shares:
            raise RecipeError("--prior moves probabilities from the shares in training, which this model doesn't hold")
        self.log_ratio = np.zeros(len(config.class_names))
        if config.trained_shares:
            wanted = shares(config.class_names, config.class_shares, prior or {})
            self.log_ratio = log_ratio(wanted, config.trained_shares)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        prior: dict[str, float] | None = None,
        device: str = "auto",
        precision: Literal["auto", "bf16", "fp32"] = "auto",
        views: int | None = None,
    ) -> "Predictor":
        """The predictor of a run's folder, or of a folder with its `model.safetensors` and `config.json`.

        `views` replaces how many the model was trained to be asked by: as `evaluate.views`.

        Raises:
            RunError: there is no model in it, or a damaged one.
            RecipeError: as the class.
        """
        model = model_folder(folder)
        network, config = load_model(model)
        config = config.model_copy(update={"views": views or config.views})
        predictor = cls(network, config, prior=prior, device=device, precision=precision)
        card = model / "README.md"
        predictor.card = card.read_text(encoding="utf-8") if card.exists() else ""
        return predictor

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(save_directory, self.network, self.config)
        if self.card:
            files.write_text(save_directory / "README.md", self.card)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        prior: dict[str, float] | None = None,
        device: str = "auto",
        precision: Literal["auto", "bf16", "fp32"] = "auto",
        **from_config: object,
    ) -> "Predictor":
        unknown = sorted(from_config.keys() - {"network", "config"})
        if unknown:
            raise TypeError(f"from_pretrained() got an unexpected keyword argument {unknown[0]!r}")
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=["model.safetensors", "config.json", "README.md"],
                )
            )
        return cls.load(folder, prior=prior, device=device, precision=precision)

    def answer(self, images: np.ndarray, *, decode: bool = True, reconstructions: bool = True) -> Answer:
        """What it says of uint8 images (N, 3, S, S), where S is `config.image_size`; N is at least 1.

        Without `reconstructions` none are kept, which at 3 S S floats an image are most of an answer; without `decode`
        none are made.

        Raises:
            ValueError: the images are of another type or shape.
        """
        side = self.config.image_size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (3, side, side) or not len(images):
            raise ValueError(f"images are {images.dtype} of shape {images.shape}: give uint8 of (N, 3, {side}, {side})")
        latents, rebuilt, logits, errors = [], [], [], []
        start = 0
        ask = functools.partial(answers, device=self.device, precision=self.precision, decode=decode)
        for output in ask(self.network, images, views=self.config.views):
            reconstruction = output.reconstruction.numpy()
            originals = images[start : start + len(reconstruction)].astype(np.float32) / 255
            start += len(reconstruction)
            errors.append(np.square(reconstruction - originals).mean(axis=(1, 2, 3), dtype=np.float64))
            latents.append(output.latent.numpy())
            logits.append(output.logits.numpy())
            rebuilt.append(reconstruction if reconstructions else reconstruction[:0])
        return Answer(
            self.probabilities(np.concatenate(logits)),
            np.concatenate(latents),
            np.concatenate(rebuilt),
            np.concatenate(errors),
        )

    def answers(
        self, images: np.ndarray, indices: np.ndarray, description: str, *, decode: bool = True
    ) -> Iterator[tuple[slice, Answer]]:
        """Yields what it says of the `images` (M, 3, S, S) at `indices` (N,), and of which of the indices, in parts.

        A part without reconstructions is all that is in memory at a time. A progress bar shows the `description`.
        """
        size = max(1, PIXELS_AT_ONCE // images.shape[-1] ** 2)
        for start in track(range(0, len(indices), size), description):
            some = slice(start, min(start + size, len(indices)))
            yield some, self.answer(images[indices[some]], decode=decode, reconstructions=False)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (N, K) of logits, moved from the shares in training to those that are expected."""
        return probabilities(logits, self.config.temperature, self.log_ratio)

    def usual(self, errors: np.ndarray) -> np.ndarray | None:
        """Whether images reconstruct as well as 99 of 100 validation images did, bool (N,); None if unmeasured."""
        return None if self.config.usual_error is None else errors <= self.config.usual_error


def model_folder(folder: Path) -> Path:
    """Where the model of `folder` lies: a run's in `model/`, or the folder itself.

    Raises:
        RunError: there is none.
    """
    if (folder / "config.json").is_file():
        return folder
    if not (folder / "model" / "config.json").is_file():
        run = Run.open(folder)  # says what is wrong with a folder that is none
        raise RunError(f"{run.folder} has no model yet: continue it with `latentry train --resume {run.folder}`")
    return folder / "model"


def shares(names: tuple[str, ...], trained: tuple[float, ...], prior: dict[str, float]) -> np.ndarray:
    """Expected share of each class, float64 (K,), from those in training and those that `prior` fixes.

    Raises:
        RecipeError: a class is unknown, a share is none, or they don't fit together.
    """
    unknown = sorted(prior.keys() - set(names))
    if unknown:
        raise RecipeError(f"--prior names {unknown[0]!r}; the classes are {', '.join(names)}")
    wrong = {name: share for name, share in prior.items() if not 0 <= share <= 1}
    total = sum(prior.values())
    if wrong or total > 1 + PRIOR_TOLERANCE or (len(prior) == len(names) and total < 1 - PRIOR_TOLERANCE):
        named = next(iter(wrong.items()), ("all together", total))
        raise RecipeError(f"--prior gives {named[0]} {named[1]:g}: shares are from 0 to 1, and 1 all together")
    rest = sum(share for name, share in zip(names, trained, strict=True) if name not in prior)
    return np.array(
        [
            prior.get(name, max(0.0, 1 - total) * share / rest if rest else 0.0)
            for name, share in zip(names, trained, strict=True)
        ]
    )
