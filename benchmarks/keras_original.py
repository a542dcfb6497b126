"""The Keras side of against_keras.py, run where Keras is: prints images a second of one of seed 1's steps."""

import sys
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "reference"))
from keras_seed1 import augmentation, classify, decode, encode

BATCH = 128
NUM_FROZEN = 11


def best_rate(action, num_images: int, repeats: int = 3) -> float:
    """Images a second of the fastest of a few runs, after one that doesn't count."""
    action()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return num_images / min(seconds)


def built(system: str) -> keras.Model:
    image = layers.Input((32, 32, 3))
    if system == "autoencoder":
        model = keras.Model(image, decode(encode(image)))
        model.compile(keras.optimizers.RMSprop(1e-3), "mean_squared_error")
        return model
    model = keras.Model(image, classify(encode(image) if system == "frozen11" else image, 2))
    for layer in model.layers[:NUM_FROZEN] if system == "frozen11" else []:
        layer.trainable = False
    model.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy")
    return model


def main(system: str, num_steps: int) -> float:
    random = np.random.default_rng(0)
    images = random.random((num_steps * BATCH, 32, 32, 3), dtype=np.float32)
    labels = np.eye(10, dtype=np.float32)[random.integers(0, 10, len(images))]
    augmented = augmentation().flow(images, labels, batch_size=BATCH)
    if system == "augmentation":
        return best_rate(lambda: [augmented[step] for step in range(num_steps)], len(images))
    model = built("cnn" if system == "whole" else system)
    if system == "whole":
        return best_rate(lambda: model.fit(augmented, steps_per_epoch=num_steps, verbose=0), len(images))
    batch, targets = images[:BATCH], images[:BATCH] if system == "autoencoder" else labels[:BATCH]
    return best_rate(lambda: [model.train_on_batch(batch, targets) for _ in range(num_steps)], len(images))


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2])))
