"""What the stages minimise."""

from torch import Tensor
from torch.nn import functional

SMALLEST_ERROR = 1e-10
"""Keeps the PSNR of a perfect reconstruction finite: 100 dB."""


def reconstruction_loss(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all pixels, both float of shape (N, C, H, W) in [0, 1] units."""
    return functional.mse_loss(reconstruction, target)


def psnr(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, (N,), of floats (N, C, H, W), both clipped to [0, 1]."""
    errors = (reconstruction.detach().clamp(0, 1) - target.clamp(0, 1)).square().mean(dim=(1, 2, 3))
    return -10 * errors.clamp_min(SMALLEST_ERROR).log10()


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    adjustment: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy in nats of logits (N, K) and labels (N,).

    Smoothing spreads that share of a label over all outputs; `class_weights` weights the mean by the labels, and the
    share that smoothing spreads by the output it falls to, as torch does; `adjustment` is added to the logits. Either
    may leave out the last of the K, which are then no class.
    """
    if class_weights is not None:
        class_weights = _for_every_output(class_weights, logits, spare=1.0)
    if adjustment is not None:
        logits = logits + _for_every_output(adjustment, logits, spare=0.0)
    return functional.cross_entropy(logits, labels, class_weights, label_smoothing=label_smoothing)


def _for_every_output(values: Tensor, logits: Tensor, *, spare: float) -> Tensor:
    return functional.pad(values.to(logits.device), (0, logits.shape[1] - len(values)), value=spare)
