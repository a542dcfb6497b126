"""Labelled images as two arrays."""

import dataclasses
import functools

import numpy as np

from latentry import files


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Attributes:
        images: uint8, shape (N, C, H, W), values 0 to 255; may be memory-mapped.
        labels: int64, shape (N,), an index into `class_names`.
        class_names: one name a class.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8, self.images.dtype
        assert self.images.ndim == 4, self.images.shape
        assert self.labels.dtype == np.int64, self.labels.dtype
        assert self.labels.shape == (len(self.images),), (self.labels.shape, self.images.shape)
        assert len(self.labels) == 0 or 0 <= self.labels.min() <= self.labels.max() < len(self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, indices: np.ndarray | None = None) -> dict[str, int]:
        """Class name to number of images, of all or of those at `indices`."""
        labels = self.labels if indices is None else self.labels[indices]
        counts = np.bincount(labels, minlength=len(self.class_names))
        return {name: int(count) for name, count in zip(self.class_names, counts, strict=True)}

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of class names, shape, pixels and labels: the same content from any source has the same hash."""
        header = repr((self.class_names, self.images.shape)).encode()
        return files.sha256(
            header, np.ascontiguousarray(self.images).data.cast("B"), np.ascontiguousarray(self.labels).data.cast("B")
        )
