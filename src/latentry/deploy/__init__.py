"""A trained model at work: predictions of new images."""
