"""Stage 2: the classifier learns on the latent, with the encoder frozen, fine-tuned or trained jointly."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentry.batches.loader import Batch
from latentry.models.network import AutoencoderClassifier, leading_layers
from latentry.settings import Classify
from latentry.training.losses import classification_loss, psnr, reconstruction_loss
from latentry.training.stage import StageModule


class Classification(StageModule):
    """Cross-entropy of the logits, plus the weighted reconstruction loss where training is joint.

    Raises:
        RecipeError: `classify.freeze` names no layer of the encoder.
    """

    name = "classify"
    settings: Classify

    def __init__(
        self,
        network: AutoencoderClassifier,
        settings: Classify,
        *,
        seed: int,
        num_steps: int,
        class_weights: Tensor | None = None,
        class_shares: Sequence[float] = (),
    ) -> None:
        super().__init__(network, settings, seed=seed, num_steps=num_steps)
        self.class_weights = class_weights
        tau = settings.logit_adjustment
        self.adjustment = tau * torch.tensor(class_shares).log() if tau else None
        self.frozen: list[nn.Module] = []
        if settings.freeze == "encoder":
            self.frozen = list(network.encoder.children())
        elif settings.freeze:
            self.frozen = leading_layers(network.encoder, settings.freeze, "classify.freeze")
        for layer in self.frozen:
            layer.requires_grad_(False)

    def trained(self) -> list[nn.Module]:
        joint = [self.network.decoder] if self.settings.reconstruction_weight else []
        return [self.network.encoder, self.network.classifier, *joint]

    def settled(self) -> bool:
        return self._weighs(self.global_step - 1)

    def prepare(self) -> None:
        """As in Keras, a frozen norm runs on its stored statistics, and dropout stays active in frozen layers."""
        super().prepare()
        for layer in self.frozen:
            for module in layer.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        latent = self.network.encode(batch.images)
        logits = self.network.classifier(latent)
        if self.training:
            weights = self.class_weights if self._weighs(self.global_step) else None
            smoothing = self.settings.label_smoothing
            loss = classification_loss(logits, batch.labels, smoothing, weights, self.adjustment)
        else:  # asks for the plain cross-entropy
            loss = classification_loss(logits, batch.labels)
        accuracy = (logits.argmax(dim=1) == batch.labels).float().mean()
        if not self.settings.reconstruction_weight:
            return {"loss": loss, "accuracy": accuracy}
        reconstruction = self.network.decode(latent, batch.images.shape[-2:])
        loss = loss + self.settings.reconstruction_weight * reconstruction_loss(reconstruction, batch.target)
        return {"loss": loss, "accuracy": accuracy, "psnr": psnr(reconstruction, batch.target).mean()}

    def _weighs(self, step: int) -> bool:
        """Whether the weights of classes count in `step`, from 0 on; in the last they always do."""
        return step >= min(self.settings.class_weight_after * self.num_steps, self.num_steps - 1)
