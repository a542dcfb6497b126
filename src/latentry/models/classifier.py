"""Classifiers (node 2 to node 4): latent in, logits out."""

from torch import Tensor, nn

from latentry.errors import RecipeError
from latentry.models.blocks import LastLinear, convolution, initialise_glorot, keras_norm, light_norm

LIGHT_CLASSIFIER_CHANNELS = 256
LIGHT_LOGIT_SCALE = 1 / 9
SEED2_OUTPUTS = 16
LARGEST_FLAT = 1 << 18
"""Numbers that seed 1's dense layers take: half a gigabyte of weights."""
SEED2_SMALLEST_SIDE = 6


class LightClassifier(nn.Module):
    """One convolution on the latent, the maximum over places, one linear layer: (N, C, h, w) of any size to (N, K).

    The fixed factor on the logits (Jordan 2024, arXiv 2404.00498) keeps them small at the start.
    """

    def __init__(self, latent_channels: int, num_classes: int) -> None:
        super().__init__()
        self.convolution = nn.Sequential(
            nn.SiLU(),
            convolution(latent_channels, LIGHT_CLASSIFIER_CHANNELS, bias=False),
            light_norm(LIGHT_CLASSIFIER_CHANNELS),
            nn.SiLU(),
        )
        self.linear = LastLinear(LIGHT_CLASSIFIER_CHANNELS, num_classes, bias=False)

    def forward(self, latent: Tensor) -> Tensor:
        features = self.convolution(latent).amax(dim=(2, 3))  # (N, 256)
        logits: Tensor = self.linear(features) * LIGHT_LOGIT_SCALE
        return logits


def cnn_classifier(latent_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """Seed 1's CNN classifier for latents (or images) of `latent_shape` (C, h, w).

    The maximum is taken before the ReLU, which is the same and leaves the ReLU a quarter of the work.
    """
    channels, height, width = latent_shape
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [convolution(channels, 64), keras_norm(64), nn.MaxPool2d(2), nn.ReLU()]
        channels, height, width = 64, height // 2, width // 2
    return _with_dense_layers(layers, channels * height * width, num_classes)


def dense_classifier(latent_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """Seed 1's dense ("modified") classifier for latents of `latent_shape` (C, h, w)."""
    channels, height, width = latent_shape
    return _with_dense_layers([], channels * height * width, num_classes)


class Seed2Classifier(nn.Sequential):
    """Seed 2's classifier: no activations, and 16 outputs whatever the number of classes (N, C, h, w) to (N, 16).

    In evaluation the spare outputs are left out: (N, K).

    Raises:
        RecipeError: there are more than 16 classes, or the latent is smaller than 6x6.
    """

    def __init__(self, latent_shape: tuple[int, int, int], num_classes: int) -> None:
        channels, height, width = latent_shape
        if num_classes > SEED2_OUTPUTS or min(height, width) < SEED2_SMALLEST_SIDE:
            raise RecipeError(
                f"model.classifier = seed2 takes at most {SEED2_OUTPUTS} classes and latents of at least "
                f"{SEED2_SMALLEST_SIDE}x{SEED2_SMALLEST_SIDE}, and these are {num_classes} and {height}x{width}: "
                "use another classifier"
            )
        self.num_classes = num_classes
        super().__init__(
            nn.Conv2d(channels, 32, kernel_size=3),
            nn.Conv2d(32, 64, kernel_size=3),
            nn.MaxPool2d(2),
            nn.Dropout2d(0.2),
            nn.Flatten(),
            nn.Linear(64 * ((height - 4) // 2) * ((width - 4) // 2), 128),
            nn.Linear(128, 64),
            LastLinear(64, SEED2_OUTPUTS),
        )

    def forward(self, latent: Tensor) -> Tensor:
        logits: Tensor = super().forward(latent)  # type: ignore[no-untyped-call]
        return logits if self.training else logits[:, : self.num_classes]


def _with_dense_layers(layers: list[nn.Module], features: int, num_classes: int) -> nn.Sequential:
    if features > LARGEST_FLAT:
        raise RecipeError(
            f"the latent would give the dense layers {features:,} numbers, the limit is {LARGEST_FLAT:,}: use a "
            "smaller image_size, or model.classifier = light"
        )
    dense = [nn.Linear(features, 512), nn.ReLU(), nn.Dropout(0.4), nn.Linear(512, 64), nn.ReLU()]
    classifier = nn.Sequential(*layers, nn.Flatten(), *dense, LastLinear(64, num_classes))
    initialise_glorot(classifier)
    return classifier
