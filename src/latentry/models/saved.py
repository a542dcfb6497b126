"""A network as files: its weights, and the `model/` folder that a finished run leaves."""

from pathlib import Path
from typing import Annotated, Literal, Self

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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

    @model_validator(mode="after")
    def shares_are_of_the_classes(self) -> Self:
        for shares in (self.class_shares, self.trained_shares):
            if shares and len(shares) != len(self.class_names):
                raise ValueError(f"{len(shares)} shares are given of {len(self.class_names)} classes")
        return self


def save_weights(file: Path, network: AutoencoderClassifier) -> None:
    """Writes every parameter and buffer of `network` as safetensors."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    files.write_bytes(file, safetensors.torch.save(state))


def load_weights(file: Path, network: AutoencoderClassifier) -> None:
    """Fills `network` in place from the file that `save_weights` wrote.

    Raises:
        RunError: the file is missing or damaged, or belongs to another network.
    """
    try:
        network.load_state_dict(safetensors.torch.load_file(file))
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{file} is missing or damaged ({reason}): restore it or train again") from None


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
