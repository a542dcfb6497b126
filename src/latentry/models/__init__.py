"""The four nodes: encoder, latent, decoder, classifier."""
