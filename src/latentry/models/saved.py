"""A network as files: its weights, and the `model/` folder that a finished run leaves."""

import itertools
from pathlib import Path
from typing import Annotated, Literal, Self

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from latentry import files
from latentry.errors import RunError
from latentry.models.network import AutoencoderClassifier, build_network
from latentry.settings import ImageSize, Model

FORMAT_VERSION = 1
LARGEST_NUM_CLASSES = 100_000


class ModelConfig(BaseModel):
    """What `model/config.json` holds: all that is needed to rebuild the network and ask it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    class_names: Annotated[tuple[str, ...], Field(max_length=LARGEST_NUM_CLASSES)]
    image_size: ImageSize
    network: Model
    mean: tuple[float, float, float]
    """One a channel, of pixels in [0, 1]."""
    deviation: tuple[float, float, float]
    views: Literal[1, 2, 6]
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """What logits are divided by before they are moved from `trained_shares` to `class_shares`, and the softmax."""
    class_shares: tuple[float, ...] = ()
    """How frequent each class was among the training images; empty in folders of before this was kept."""
    trained_shares: tuple[float, ...] = ()
    """What share of the classifier's attention each class had: other than `class_shares` where it was rebalanced;
    empty where no classifier was trained."""
    usual_error: float | None = None
    """Mean squared error, of pixels in [0, 1], that 99 of 100 validation images stay below; None if unmeasured."""

    @property
    def predicts(self) -> bool:
        """Whether a classifier was trained; in folders of before shares were kept there always is one."""
        return bool(self.trained_shares) or not self.class_shares

    def check_predicts(self) -> None:
        """Raises RunError where no classifier was trained."""
        if not self.predicts:
            raise RunError("this model has no trained classifier: train one, with classify.max_epochs above 0")

    @model_validator(mode="after")
    def shares_are_of_the_classes(self) -> Self:
        for shares in (self.class_shares, self.trained_shares):
            if shares and len(shares) != len(self.class_names):
                raise ValueError(f"{len(shares)} shares are given of {len(self.class_names)} classes")
        return self


def save_weights(file: Path, network: AutoencoderClassifier) -> None:
    """Writes every parameter and buffer of `network` as safetensors, and a hash of them."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    files.write_bytes(file, safetensors.torch.save(state, {"sha256": _sha256(state)}))


def read_weights(file: Path) -> dict[str, Tensor]:
    """The parameters and buffers, by name, in the file that `save_weights` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        with safetensors.safe_open(file, "pt") as content:
            state = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - it is no dict
            kept = (content.metadata() or {}).get("sha256")
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{file} is missing or damaged ({error}): restore it or train again") from None
    if kept not in (None, _sha256(state)):  # none in files of before it was kept
        raise RunError(f"{file} is damaged (its weights do not match their hash): restore it or train again")
    return state


def load_weights(file: Path, network: AutoencoderClassifier) -> None:
    """Fills `network` in place from the file that `save_weights` wrote.

    Raises:
        RunError: the file is missing or damaged, or belongs to another network.
    """
    try:
        network.load_state_dict(read_weights(file))
    except RuntimeError as error:
        raise RunError(f"{file} is of another network ({error}): restore it or train again") from None


def _sha256(state: dict[str, Tensor]) -> str:
    named = ((f"{name} {tuple(state[name].shape)}".encode(), state[name].reshape(-1)) for name in sorted(state))
    parts = ((name, values.view(torch.uint8).numpy().tobytes()) for name, values in named)
    return files.sha256(*itertools.chain.from_iterable(parts))


def save_model(folder: Path, network: AutoencoderClassifier, config: ModelConfig) -> None:
    """Writes `model.safetensors`, then `config.json`, into `folder`."""
    save_weights(folder / "model.safetensors", network)
    files.write_text(folder / "config.json", config.model_dump_json(indent=1) + "\n")


def load_config(folder: Path) -> ModelConfig:
    """What `config.json` in `folder` holds.

    Raises:
        RunError: it is missing or damaged, or of a format that this version doesn't know.
    """
    content = files.read_json(folder / "config.json")
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise RunError(f"{folder} has format version {version}, this latentry reads {FORMAT_VERSION}: upgrade latentry")
    try:
        return ModelConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{folder / 'config.json'} is damaged ({where}: {first['msg']}): restore it") from None


def load_model(folder: Path) -> tuple[AutoencoderClassifier, ModelConfig]:
    """Returns the network in `folder`, in evaluation mode, and its config; needs nothing but the folder.

    Raises:
        RunError: a file is missing or damaged, or of a format that this version doesn't know.
        RecipeError: its parts make no network.
    """
    config = load_config(folder)
    network = build_network(
        config.network,
        config.image_size,
        len(config.class_names),
        torch.tensor(config.mean),
        torch.tensor(config.deviation),
    )
    load_weights(folder / "model.safetensors", network)
    return network.eval(), config
