"""The figure that everything hangs on: node 1 image, node 2 latent, node 3 reconstruction, node 4 class."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentry.errors import RecipeError
from latentry.models import autoencoder, classifier, patches, record
from latentry.settings import Model


class Autoencoder(NamedTuple):
    """How an encoder and its decoder are made, and in which pixels both work.

    `statistics` are the mean and the deviation that pixels in [0, 1] are standardised by; None takes the training
    images' own.
    """

    encoder: Callable[[Model], nn.Sequential]
    decoder: Callable[[Model], nn.Module]
    statistics: tuple[float, float] | None


AUTOENCODERS = {
    "light": Autoencoder(lambda _: autoencoder.light_encoder(), lambda _: autoencoder.light_decoder(), None),
    "patches": Autoencoder(
        lambda model: patches.patch_encoder(model.patch_side, model.patch_components),
        lambda model: patches.PatchDecoder(model.patch_side, model.patch_components),
        None,
    ),
    "record": Autoencoder(
        lambda model: record.record_encoder(model.patch_side, model.patch_components, model.record_widths),
        lambda model: record.RecordDecoder(model.record_widths[1]),
        None,
    ),
    "seed1": Autoencoder(lambda _: autoencoder.seed1_encoder(), lambda _: autoencoder.seed1_decoder(), (0.0, 1.0)),
    "seed2": Autoencoder(lambda _: autoencoder.seed2_encoder(), lambda _: autoencoder.seed2_decoder(), (0.5, 0.5)),
    "identity": Autoencoder(lambda _: nn.Sequential(), lambda _: nn.Sequential(), (0.0, 1.0)),
}
CLASSIFIERS: dict[str, Callable[[Model, tuple[int, int, int], int], nn.Module]] = {
    "light": lambda _, shape, num_classes: classifier.LightClassifier(shape[0], num_classes),
    "record": lambda model, shape, num_classes: record.behind_patches(shape[0], num_classes, model.record_widths),
    "record-top": lambda model, shape, num_classes: record.behind_two_groups(
        shape[0], num_classes, model.record_widths
    ),
    "cnn": lambda _, shape, num_classes: classifier.cnn_classifier(shape, num_classes),
    "dense": lambda _, shape, num_classes: classifier.dense_classifier(shape, num_classes),
    "seed2": lambda _, shape, num_classes: classifier.Seed2Classifier(shape, num_classes),
}
"""Of each, from the model, the latent's shape (C, h, w) and the number of classes."""


class Output(NamedTuple):
    """What the network says of a batch.

    Attributes:
        latent: node 2, shape (N, c, h, w).
        reconstruction: node 3, shape (N, C, H, W), in the images' range [0, 1] (not clipped to it).
        logits: node 4, shape (N, K).
    """

    latent: Tensor
    reconstruction: Tensor
    logits: Tensor


class AutoencoderClassifier(nn.Module):
    """An encoder whose latent feeds a decoder and a classifier.

    Images are float, shape (N, C, H, W), in [0, 1]; they are standardised by `mean` and `deviation` (one number a
    channel) before the encoder, and the decoder's output is taken back the same way.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, encoder: nn.Sequential, decoder: nn.Module, classifier: nn.Module, mean: Tensor, deviation: Tensor
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.classifier = classifier
        self.register_buffer("mean", mean.reshape(-1, 1, 1))
        self.register_buffer("deviation", deviation.reshape(-1, 1, 1))

    def encode(self, images: Tensor) -> Tensor:
        """Node 1 to node 2."""
        latent: Tensor = self.encoder((images - self.mean) / self.deviation)
        return latent

    def decode(self, latent: Tensor, size: torch.Size) -> Tensor:
        """Node 2 to node 3, cut to `size` (height, width) where the encoder rounded up."""
        decoded = self.decoder(latent)[..., : size[0], : size[1]].float()
        reconstruction: Tensor = decoded * self.deviation + self.mean
        return reconstruction

    def forward(self, images: Tensor) -> Output:
        latent = self.encode(images)
        return Output(latent, self.decode(latent, images.shape[-2:]), self.classifier(latent))


def build_network(
    model: Model, image_size: int, num_classes: int, mean: Tensor, deviation: Tensor
) -> AutoencoderClassifier:
    """Returns the network that `model` names, its weights drawn from torch's global generator.

    `image_size` is the images' side in pixels; `mean` and `deviation` have one number a channel, in [0, 1] units.

    Raises:
        RecipeError: the network can't take this image size.
    """
    parts = AUTOENCODERS[model.autoencoder]
    encoder, decoder = parts.encoder(model), parts.decoder(model)
    channels, height, width = latent_shape(encoder, image_size)
    least = {"cnn": 4, "record": 8, "record-top": 2}.get(model.classifier, 1)
    if min(height, width) < least:
        raise RecipeError(
            f"model.classifier = {model.classifier} halves the latent and takes {least}x{least} or more, and this is "
            f"{height}x{width}: use a larger image_size or another one"
        )
    node4 = CLASSIFIERS[model.classifier](model, (channels, height, width), num_classes)
    if parts.statistics is not None:
        mean, deviation = (torch.full_like(mean, value) for value in parts.statistics)
    network = AutoencoderClassifier(encoder, decoder, node4, mean, deviation)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval()
    with torch.no_grad():
        rebuilt = network(torch.zeros(1, 3, image_size, image_size)).reconstruction.shape[-1]
    network.train()
    if rebuilt != image_size:
        raise RecipeError(
            f"model.autoencoder = {model.autoencoder} rebuilds images of {image_size} pixels with {rebuilt}: "
            "use an image_size that is a multiple of 4 (and a patch_side of at most 5), or the light network"
        )
    return network


def leading_layers(encoder: nn.Sequential, last: str, setting: str) -> list[nn.Module]:
    """The encoder's layers up to the one called `last`, with it; `setting` is the recipe key that names it.

    Raises:
        RecipeError: the encoder has no such layer.
    """
    names = [name for name, _ in encoder.named_children()]
    if last not in names:
        raise RecipeError(f"{setting} = {last!r} is no layer of the encoder: its layers are {', '.join(names)}")
    return list(encoder.children())[: names.index(last) + 1]


def latent_shape(encoder: nn.Sequential, image_size: int) -> tuple[int, int, int]:
    """Shape (c, h, w) of the latent of one image."""
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        shape = encoder(torch.zeros(1, 3, image_size, image_size)).shape
    encoder.train(was_training)
    return shape[1], shape[2], shape[3]
