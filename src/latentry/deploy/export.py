"""A trained model as one ONNX file: uint8 images in; probabilities, latent and reconstruction out; no torch."""

import dataclasses
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentry import files
from latentry.data import load_train
from latentry.data.split import Split
from latentry.deploy.extras import extra
from latentry.deploy.predictor import Predictor
from latentry.errors import RunError
from latentry.evaluation.evaluate import load_predictions
from latentry.inference import views_of
from latentry.progress import track
from latentry.run import Run

OUTPUTS = ("probabilities", "latent", "reconstruction")
LARGEST_DIFFERENCE = 1e-3
OPSET = 20
NUM_CALIBRATION_IMAGES = 512
BATCH_PIXELS = 100 * 32 * 32
LEAST_LOG_RATIO = -1e4
"""Stands for a class that can't be, whose logarithm no file holds."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export was found to do.

    Attributes:
        largest_difference: between its outputs and PyTorch's, in fp32, on images of the run.
        validation_accuracy: of the file, where it was asked for; None otherwise.
        int8_validation_accuracy: of the file in 8 bits, likewise.
    """

    largest_difference: float
    validation_accuracy: float | None = None
    int8_validation_accuracy: float | None = None


class Graph(nn.Module):
    """From uint8 images (N, S, S, 3) to probabilities (N, K), latent (N, c, h, w) and reconstruction (N, S, S, 3)."""

    log_ratio: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.network = predictor.network
        self.config = predictor.config
        finite = np.maximum(predictor.log_ratio, LEAST_LOG_RATIO)
        self.register_buffer("log_ratio", torch.from_numpy(finite).float())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = images.permute(0, 3, 1, 2).float() / 255
        seen, weights = views_of(pixels, self.config.views)
        latents = [self.network.encode(view) for view in seen]
        latent = latents[0]
        logits = weights[0] * self.network.classifier(latent)
        for weight, other in zip(weights[1:], latents[1:], strict=True):
            logits = logits + weight * self.network.classifier(other)
        size = torch.Size((self.config.image_size, self.config.image_size))
        reconstruction = self.network.decode(latent, size).clamp(0, 1).permute(0, 2, 3, 1)
        probabilities = torch.softmax(logits / self.config.temperature + self.log_ratio, dim=1)
        return probabilities, latent, reconstruction


def export(folder: Path, out: Path, *, prior: dict[str, float] | None = None, int8: bool = False) -> Exported:
    """Writes the model of the run in `folder` to the ONNX file `out`, once it is known to say what PyTorch says.

    With `int8` its convolutions are quantised, and both forms are asked about the validation images.

    Raises:
        RunError: the run is unfinished, all-train where `int8` is asked for, or the file says something else; nothing
            is then written. Or the packages of the extra `export` are missing.
    """
    onnxruntime = extra("export", "onnxruntime")
    extra("export", "onnxscript")
    run = Run.open(folder)
    run.results()
    predictor = Predictor.load(folder, prior=prior, device="cpu")
    predictor.config.check_predicts()
    predictions = load_predictions(run)
    names = [f"{part}_example_images" for part in ("validation", "train") if f"{part}_example_images" in predictions]
    if not names:
        raise RunError(f"{run.predictions_file} holds no images to try the file on: restore it or train again")
    shown = predictions[names[0]]
    measured = _images_of(run) if int8 else None
    with files.replacing(out) as temporary:
        _write(predictor, shown, temporary)
        largest = _largest_difference(predictor, shown, onnxruntime.InferenceSession(temporary.read_bytes()))
        if not largest <= LARGEST_DIFFERENCE:
            raise RunError(
                f"the file that {folder} became differs from it by {largest:.2g}, the limit is {LARGEST_DIFFERENCE:g}: "
                "report this, with the versions of torch and onnxruntime"
            )
        if measured is None:
            return Exported(largest)
        training, validation, labels = measured
        whole = _accuracy(onnxruntime.InferenceSession(temporary.read_bytes()), validation, labels, "fp32")
        _quantise(temporary, training)
        small = _accuracy(onnxruntime.InferenceSession(temporary.read_bytes()), validation, labels, "int8")
        return Exported(largest, whole, small)


def _write(predictor: Predictor, shown: np.ndarray, file: Path) -> None:
    onnx = extra("export", "onnx")
    for name in ("onnxscript", "torch.onnx"):  # of which the second misses packages that are not needed
        logging.getLogger(name).setLevel(logging.ERROR)
    example = torch.from_numpy(np.ascontiguousarray(shown[:2].transpose(0, 2, 3, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Graph(predictor).eval(),
            (example,),
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    config = predictor.config
    onnx.helper.set_model_props(
        model,
        {
            "class_names": json.dumps(config.class_names),
            "image_size": str(config.image_size),
            "usual_error": json.dumps(config.usual_error),
        },
    )
    file.write_bytes(model.SerializeToString())


def _largest_difference(predictor: Predictor, shown: np.ndarray, session: Any) -> float:
    graph, largest = Graph(predictor).eval(), []
    for images in _batches(shown):
        with torch.inference_mode():
            expected = graph(torch.from_numpy(images))
        given = session.run(None, {"images": images})
        largest += [np.abs(one.numpy() - other).max() for one, other in zip(expected, given, strict=True)]
    return float(np.max(largest))


def _images_of(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some training images to calibrate by, and the validation images with their labels."""
    split = Split.read(run.split_file)
    if not len(split.validation):
        raise RunError(f"{run.folder} has no validation images to measure int8 by: export a held-out run")
    images = load_train(run.recipe().data)
    if images.sha256 != run.results()["dataset_sha256"]:
        raise RunError(f"the images that {run.folder} was trained on have changed: restore them, or leave --int8 out")
    chosen = np.random.default_rng(0).permutation(split.train)[:NUM_CALIBRATION_IMAGES]
    return images.images[np.sort(chosen)], images.images[split.validation], images.labels[split.validation]


def _batches(images: np.ndarray, description: str = "") -> Iterator[np.ndarray]:
    size = max(1, BATCH_PIXELS // images.shape[-1] ** 2)
    starts = range(0, len(images), size)
    for start in track(starts, description) if description else starts:
        yield np.ascontiguousarray(images[start : start + size].transpose(0, 2, 3, 1))


def _accuracy(session: Any, images: np.ndarray, labels: np.ndarray, form: str) -> float:
    batches = _batches(images, f"Validating {form}")
    chosen = [session.run(["probabilities"], {"images": batch})[0].argmax(axis=1) for batch in batches]
    return float((np.concatenate(chosen) == labels).mean())


def _quantise(file: Path, images: np.ndarray) -> None:
    """Replaces the file's convolutions by ones of 8 bits, their ranges taken from `images`."""
    quantization = extra("export", "onnxruntime.quantization")
    batches = _batches(images)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(batches, None)
            return None if batch is None else {"images": batch}

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # where it gives advice to people who quantise by hand
    try:
        quantization.quantize_static(
            str(file),
            str(file),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
