"""Classifiers (node 2 to node 4): latent in, logits out."""

from torch import Tensor, nn

from latentry.models.blocks import convolution, initialise_glorot, keras_norm, light_norm

LIGHT_CLASSIFIER_CHANNELS = 256
LIGHT_LOGIT_SCALE = 1 / 9


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
        self.linear = nn.Linear(LIGHT_CLASSIFIER_CHANNELS, num_classes, bias=False)

    def forward(self, latent: Tensor) -> Tensor:
        features = self.convolution(latent).amax(dim=(2, 3))  # (N, 256)
        logits: Tensor = self.linear(features) * LIGHT_LOGIT_SCALE
        return logits


def cnn_classifier(latent_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """Seed 1's CNN classifier for latents (or images) of `latent_shape` (C, h, w)."""
    channels, height, width = latent_shape
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [convolution(channels, 64), keras_norm(64), nn.ReLU(), nn.MaxPool2d(2)]
        channels, height, width = 64, height // 2, width // 2
    return _with_dense_layers(layers, channels * height * width, num_classes)


def dense_classifier(latent_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """Seed 1's dense ("modified") classifier for latents of `latent_shape` (C, h, w)."""
    channels, height, width = latent_shape
    return _with_dense_layers([], channels * height * width, num_classes)


def _with_dense_layers(layers: list[nn.Module], features: int, num_classes: int) -> nn.Sequential:
    dense = [nn.Linear(features, 512), nn.ReLU(), nn.Dropout(0.4), nn.Linear(512, 64), nn.ReLU()]
    classifier = nn.Sequential(*layers, nn.Flatten(), *dense, nn.Linear(64, num_classes))
    initialise_glorot(classifier)
    return classifier
