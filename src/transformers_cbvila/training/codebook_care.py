"""What a codebook needs besides gradients: a start from features, its moving average, restarts of unused codes."""

import torch
from transformers import TrainerCallback

from ..data.masking import generator_for
from .kmeans import kmeans
from .schedule import as_steps
from .sharding import latents_of_sharded

_POINTS_PER_CODE = 16
_RESTART_SHARE = 0.01  # of the codes, at most, per step
_RESTART_UNTIL = 0.9  # of burn-in: the last restarts must settle before MIM learns their indices


class CodebookCallback(TrainerCallback):
    """Starts, moves and, in burn-in, revives the codes of a model; [`CBViLATrainer`] adds it by itself."""

    def __init__(self, trainer):
        self.trainer = trainer

    @property
    def codebook(self):
        return self.trainer.unwrapped_model.cbvila.codebook

    def on_train_begin(self, args, state, control, **kwargs):
        if args.codebook_init and not bool(self.codebook.initialized):
            self.fit(seed=args.seed)

    def on_step_begin(self, args, state, control, **kwargs):
        burn_in = self._burn_in(args, state)
        if args.codebook_refit and burn_in > 0 and state.global_step == burn_in:
            self.fit(seed=args.seed + 1)

    def on_optimizer_step(self, args, state, control, **kwargs):
        if self.trainer.accelerator.optimizer_step_was_skipped:
            return  # the gradient scaler of fp16 found an overflow; these tokens count with the next step's
        self.codebook.update()
        settled = _RESTART_UNTIL * self._burn_in(args, state)
        if args.codebook_restart_threshold > 0 and state.global_step < settled:
            self.codebook.restart_unused(
                args.codebook_restart_threshold,
                limit=max(1, int(_RESTART_SHARE * self.codebook.num_codes)),
                generator=generator_for(args.seed, state.global_step),
            )

    def _burn_in(self, args, state) -> int:
        """Steps before the indices are targets; only pretraining has such a time."""
        return as_steps(args.burn_in_steps, state.max_steps) if self.trainer.is_pretraining else 0

    @torch.no_grad()
    def fit(self, seed: int) -> None:
        """k-means over the latents of enough training images; leaves global random state as it was."""
        latents, tokens_per_step = self._collect_latents(seed)
        codebook = self.codebook
        unit_norm = codebook.config.codebook_norm == "l2"
        centres, counts = kmeans(latents, codebook.num_codes, generator_for(seed), unit_norm=unit_norm)
        codebook.set_codes(centres, counts * (tokens_per_step / len(latents)))

    def _collect_latents(self, seed: int) -> tuple[torch.Tensor, int]:
        trainer, model = self.trainer, self.trainer.unwrapped_model
        dataset, batch_size = trainer.train_dataset, trainer.args.train_batch_size
        order = torch.randperm(len(dataset), generator=generator_for(seed)).tolist()
        wanted, latents, seen = _POINTS_PER_CODE * self.codebook.num_codes, [], 0
        was_training = model.training
        model.eval()
        for start in range(0, len(order), batch_size):
            batch = trainer.data_collator([dataset[i] for i in order[start : start + batch_size]])
            images = batch["pixel_values"].to(model.device)
            if trainer.accelerator.is_fsdp2:
                latents.append(latents_of_sharded(model, images).flatten(0, 1))
            else:
                tokens = model.cbvila.vision_model(images).last_hidden_state[:, 1:]
                latents.append(model.cbvila.codebook.encode(tokens).flatten(0, 1))
            seen += len(latents[-1])
            if seen >= wanted:
                break
        model.train(was_training)
        tokens_per_step = len(latents[0]) * trainer.args.gradient_accumulation_steps * trainer.args.world_size
        return torch.cat(latents), tokens_per_step
