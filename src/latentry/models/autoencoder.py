"""Encoders (node 1 to node 2) and decoders (node 2 to node 3)."""

from collections import OrderedDict

from torch import nn

from latentry.models.blocks import convolution, initialise_dirac, initialise_glorot, keras_norm, light_norm

LIGHT_LATENT_CHANNELS = 128
SEED1_LATENT_CHANNELS = 256


def light_encoder() -> nn.Sequential:
    """An encoder for a few minutes on a few cores: (N, 3, H, W) to (N, 128, H/8, W/8), sizes rounded up.

    For 32 pixels the latent has 2,048 numbers, two thirds of the image's 3,072. The blocks (convolution, halving,
    convolution) are after Jordan 2024, arXiv 2404.00498; the latent is a normalised convolution with no activation.
    """
    return _initialised_light(
        OrderedDict(
            stem=_unit(3, 24),
            block1=nn.Sequential(_unit(24, 48, halve=True), _unit(48, 48)),
            block2=nn.Sequential(_unit(48, 160, halve=True), _unit(160, 160)),
            block3=_unit(160, 192, halve=True),
            latent=nn.Sequential(
                convolution(192, LIGHT_LATENT_CHANNELS, bias=False), light_norm(LIGHT_LATENT_CHANNELS)
            ),
        )
    )


def light_decoder() -> nn.Sequential:
    """The light encoder's decoder: (N, 128, h, w) to (N, 3, 8h, 8w), standardised pixels.

    Upsamples by sub-pixel convolution: Shi et al. 2016, arXiv 1609.05158.
    """
    return _initialised_light(
        OrderedDict(
            block1=nn.Sequential(_unit(LIGHT_LATENT_CHANNELS, 256), nn.PixelShuffle(2)),
            block2=nn.Sequential(_unit(64, 128), nn.PixelShuffle(2)),
            block3=nn.Sequential(_unit(32, 64), nn.PixelShuffle(2)),
            image=convolution(16, 3),
        )
    )


def seed1_encoder() -> nn.Sequential:
    """Seed 1's encoder, (N, 3, H, W) to (N, 256, H/4, W/4), in its 19 layers less the input, a ReLU in each `conv`.

    "First 11 layers" in the seed's count end with `norm4`.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    number, channels = 0, 3
    for block, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3)), start=1):
        for _ in range(depth):
            number += 1
            layers[f"conv{number}"] = nn.Sequential(convolution(channels, width), nn.ReLU())
            layers[f"norm{number}"] = keras_norm(width)
            channels = width
        if block < 3:
            layers[f"pool{block}"] = nn.MaxPool2d(2)
            layers[f"dropout{block}"] = nn.Dropout(0.3)
    encoder = nn.Sequential(layers)
    initialise_glorot(encoder)
    return encoder


def seed1_decoder() -> nn.Sequential:
    """Seed 1's decoder, (N, 256, h, w) to (N, 3, 4h, 4w), pixels in [0, 1]."""
    layers: list[nn.Module] = []
    channels = SEED1_LATENT_CHANNELS
    for width, depth, upsample in ((256, 3, False), (128, 2, True), (64, 2, True)):
        for _ in range(depth):
            layers += [convolution(channels, width), nn.ReLU(), keras_norm(width)]
            channels = width
        if upsample:
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
    layers += [convolution(channels, 3), nn.Sigmoid()]
    decoder = nn.Sequential(*layers)
    initialise_glorot(decoder)
    return decoder


def seed2_encoder() -> nn.Sequential:
    """Seed 2's encoder, (N, 3, H, W) to (N, 16, H/2, W/2), a ReLU in each `conv`; torch's own first weights."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Sequential(convolution(3, 4), nn.ReLU()),
            conv2=nn.Sequential(convolution(4, 8), nn.ReLU()),
            pool=nn.MaxPool2d(2),
            conv3=nn.Sequential(nn.Conv2d(8, 16, kernel_size=5, padding=2), nn.ReLU()),
        )
    )


def seed2_decoder() -> nn.Sequential:
    """A decoder for seed 2's encoder, its mirror image: (N, 16, h, w) to (N, 3, 2h, 2w), about [-1, 1].

    The published one returned 64x64 for images of 32x32 and was never trained.
    """
    return nn.Sequential(
        nn.Conv2d(16, 8, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="nearest"),
        convolution(8, 4),
        nn.ReLU(),
        convolution(4, 3),
    )


def _unit(in_channels: int, out_channels: int, *, halve: bool = False) -> nn.Sequential:
    # The maximum is taken before the norm and the activation, which then have a quarter of the work.
    halving = [nn.MaxPool2d(2, ceil_mode=True)] if halve else []
    convolved = convolution(in_channels, out_channels, bias=False)
    return nn.Sequential(convolved, *halving, light_norm(out_channels), nn.SiLU())


def _initialised_light(layers: "OrderedDict[str, nn.Module]") -> nn.Sequential:
    network = nn.Sequential(layers)
    initialise_dirac(network)
    return network
