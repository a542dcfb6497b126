"""Pieces that the networks are built of."""

import torch
from torch import Tensor, nn


class LastLinear(nn.Linear):
    """The layer of the logits, in fp32 whatever the precision: in bf16 an image's two best logits may be equal."""

    def forward(self, features: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(features.device.type):  # an exporter takes no context
            return super().forward(features)
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


def convolution(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias)


def keras_norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm with Keras' constants: momentum 0.99 (0.01 in torch's sense), epsilon 1e-3."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def light_norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm whose statistics follow within a few steps, for runs of a few epochs."""
    return nn.BatchNorm2d(channels, momentum=0.3)


def record_norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm without a scale, whose statistics follow within a few steps.

    Source: Jordan 2024, arXiv 2404.00498.
    """
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


def initialise_glorot(module: nn.Module) -> None:
    """Gives every convolution and linear layer Keras' defaults: Glorot-uniform weights, zero biases. In place.

    Source: Glorot and Bengio 2010, equation 16.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def initialise_dirac(module: nn.Module) -> None:
    """Starts every convolution that doesn't narrow with its first outputs as copies of its inputs. In place.

    Source: Jordan 2024, arXiv 2404.00498, section 3.2.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.out_channels >= layer.in_channels:
            nn.init.dirac_(layer.weight.data[: layer.in_channels])
