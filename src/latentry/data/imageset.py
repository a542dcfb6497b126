"""Labelled images as two arrays, and what else is known of them."""

import dataclasses
import functools

import numpy as np

from latentry import files
from latentry.errors import DataError

STATISTICS_IMAGES = 1000
"""How many images the statistics read at a time."""
SMALLEST_DEVIATION = 1e-3
UNLABELLED = -1
"""The label of an image whose class is not known."""


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Attributes:
        images: uint8, shape (N, C, H, W), values 0 to 255; may be memory-mapped.
        labels: int64, shape (N,), an index into `class_names`, or -1 for an image without a label.
        class_names: one name a class.
        held_out: bool, shape (N,), which images their owner put aside for validation; None where the split chooses.
        groups: int64, shape (N,), images of one number stay on one side of the split; None where each stands alone.
        files: where each image came from; empty where that were no files.
        skipped: files that couldn't be read, and why.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    held_out: np.ndarray | None = None
    groups: np.ndarray | None = None
    files: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8, self.images.dtype
        assert self.images.ndim == 4, self.images.shape
        assert self.labels.dtype == np.int64, self.labels.dtype
        assert self.labels.shape == (len(self.images),), (self.labels.shape, self.images.shape)
        strange = self.labels[(self.labels < UNLABELLED) | (self.labels >= len(self.class_names))]
        if len(strange):
            raise DataError(
                f"label {strange[0]} is out of range: give 0 to {len(self.class_names) - 1}, or {UNLABELLED} for none"
            )
        for known in (self.held_out, self.groups):
            assert known is None or known.shape == self.labels.shape, known
        assert len(self.files) in (0, len(self.labels)), len(self.files)

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, indices: np.ndarray | None = None) -> dict[str, int]:
        """Class name to number of images, of all or of those at `indices`; those without a label don't count."""
        labels = self.labels if indices is None else self.labels[indices]
        counts = np.bincount(labels[labels != UNLABELLED], minlength=len(self.class_names))
        return {name: int(count) for name, count in zip(self.class_names, counts, strict=True)}

    def channel_statistics(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each channel over the images at `indices`, float64 of shape (C,), of pixels in [0, 1].

        A channel without variation has the deviation 0.001, so that dividing by it does no harm.
        """
        num_channels = self.images.shape[1]
        counts = np.zeros((num_channels, 256), dtype=np.int64)
        for some in np.array_split(indices, -(-len(indices) // STATISTICS_IMAGES)):
            pixels = self.images[some]
            counts += [np.bincount(pixels[:, channel].ravel(), minlength=256) for channel in range(num_channels)]
        shares = counts / counts.sum(axis=1, keepdims=True)
        levels = np.arange(256) / 255
        mean = shares @ levels
        return mean, np.maximum(np.sqrt(shares @ levels**2 - mean**2), SMALLEST_DEVIATION)

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of class names, shape, pixels and labels: the same content from any source has the same hash."""
        header = repr((self.class_names, self.images.shape)).encode()
        return files.sha256(
            header, np.ascontiguousarray(self.images).data.cast("B"), np.ascontiguousarray(self.labels).data.cast("B")
        )
