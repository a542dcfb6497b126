"""A pretrained encoder that comes from another run."""

from pathlib import Path
from typing import Any

from latentry.data.imageset import ImageSet
from latentry.data.split import Split
from latentry.errors import RunError
from latentry.models.network import AutoencoderClassifier, leading_layers
from latentry.models.saved import read_weights
from latentry.recipe import Recipe
from latentry.run import Run
from latentry.settings import Model


def lender(recipe: Recipe, images: ImageSet, split: Split) -> Run | None:
    """The finished run that `pretrain.encoder_from` names; None where it names none.

    Raises:
        RunError: there is no such run, it isn't finished, pretrained nothing or another network, or saw another split.
    """
    name = recipe.pretrain.encoder_from
    if not name:
        return None
    try:
        run = Run.open(Path(name))
        lent = run.recipe()
        results = run.results()
    except RunError as error:
        raise RunError(f"pretrain.encoder_from: {error}") from None
    if not lent.pretrain.max_epochs:
        raise RunError(f"pretrain.encoder_from = {name} ({lent.name}) pretrained nothing: name a run that did")
    ours = _encoder_settings(recipe.model)
    for key, theirs in _encoder_settings(lent.model).items():
        if theirs != ours[key]:
            raise RunError(
                f"pretrain.encoder_from = {name} has {key} = {theirs!r}, and this recipe has {ours[key]!r}: name a run "
                "with the same"
            )
    if (results["dataset_sha256"], results["split_sha256"]) != (images.sha256, split.sha256):
        raise RunError(
            f"pretrain.encoder_from = {name} was pretrained on other images or another split "
            f"({lent.data.standing}, fold {lent.data.fold}, split_seed {lent.data.split_seed}), so it may have seen "
            "what this run validates on: pretrain on this split"
        )
    return run


def copy_encoder(run: Run, network: AutoencoderClassifier, until: str) -> None:
    """Fills the layers of `network.encoder` up to the one called `until` ("" for all) as `run` pretrained them.

    Raises:
        RunError: the weights are missing or damaged.
        RecipeError: the encoder has no layer `until`.
    """
    file = run.pretrained_file
    layers = leading_layers(network.encoder, until, "pretrain.encoder_until") if until else list(network.encoder)
    names = [name for name, _ in network.encoder.named_children()][: len(layers)]
    state = read_weights(file)
    try:
        for name, layer in zip(names, layers, strict=True):
            prefix = f"encoder.{name}."
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            layer.load_state_dict(own)
    except RuntimeError as error:
        raise RunError(f"{file} is of another network ({error}): restore it or pretrain again") from None


def _encoder_settings(model: Model) -> dict[str, Any]:
    """What says how an encoder looks, by what it is called in a message; the kind first."""
    settings: dict[str, Any] = {"model.autoencoder": model.autoencoder}
    if model.autoencoder in ("patches", "record"):
        settings |= {"model.patch_side": model.patch_side, "model.patch_components": model.patch_components}
    if model.autoencoder == "record":
        settings["first two model.record_widths"] = model.record_widths[:2]
    return settings
