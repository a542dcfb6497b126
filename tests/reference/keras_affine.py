"""Makes keras_affine.npz: what Keras' own `apply_affine_transform` gives for drawn parameters.

Keras is no dependency of latentry. In an environment of its own:

    pip install keras==3.15.1 torch scipy
    KERAS_BACKEND=torch python tests/reference/keras_affine.py
"""

from pathlib import Path

import keras
import numpy as np
from keras.src.legacy.preprocessing.image import apply_affine_transform
from keras_seed1 import augmentation

NUM_IMAGES = 8
NAMES = ("theta", "tx", "ty", "shear", "zx", "zy", "flip_horizontal")

generator = augmentation()
random = np.random.default_rng(0)
images = random.random((NUM_IMAGES, 12, 12, 3), dtype=np.float32)
drawn = [generator.get_random_transform((12, 12, 3), seed=seed) for seed in range(NUM_IMAGES)]
# A shear of 0.2 degrees hardly moves a pixel: half of the images get a hundred times as much.
for parameters in drawn[::2]:
    parameters["shear"] *= 100
outputs = []
for image, parameters in zip(images, drawn, strict=True):
    affine = {name: parameters[name] for name in NAMES if name != "flip_horizontal"}
    output = apply_affine_transform(
        image, **affine, row_axis=0, col_axis=1, channel_axis=2, fill_mode="nearest", order=1
    )
    outputs.append(output[:, ::-1] if parameters["flip_horizontal"] else output)
np.savez_compressed(
    Path(__file__).with_suffix(".npz"),
    images=images.transpose(0, 3, 1, 2),
    outputs=np.stack(outputs).transpose(0, 3, 1, 2),
    keras_version=keras.__version__,
    **{name: np.array([parameters[name] for parameters in drawn], dtype=np.float64) for name in NAMES},
)
