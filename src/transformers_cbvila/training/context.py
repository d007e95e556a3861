"""What callbacks use of a Trainer."""

from typing import Any, cast

from accelerate import Accelerator
from transformers import Trainer

from ..model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.modeling_cbvila_qformer_pretraining import CBViLAForQFormerPreTraining
from .arguments import CBViLATrainingArguments
from .peft import base_model


class TrainingContext:
    """The arguments, accelerator, model and data of a [`~transformers.Trainer`].

    Each is looked up when it is used, as it may be replaced after callbacks are built: transformers replaces the model
    (`model_init`, FSDP) and the accelerator (hyperparameter search), and users set `trainer.train_dataset`. What
    transformers passes to events does not suffice: targets are computed between events, and a checkpoint is loaded
    before transformers updates the model that it passes.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @property
    def args(self) -> CBViLATrainingArguments:
        """The training arguments."""
        return cast(CBViLATrainingArguments, self._trainer.args)

    @property
    def accelerator(self) -> Accelerator:
        """The accelerator of this process."""
        return self._trainer.accelerator

    @property
    def model(self) -> Any:
        """The CB-ViLA model, without what distribution and adapters wrap around it."""
        return base_model(self.accelerator.unwrap_model(self._trainer.model))

    @property
    def train_dataset(self) -> Any:
        """The training set."""
        return self._trainer.train_dataset

    @property
    def data_collator(self) -> Any:
        """The function that makes a batch of examples."""
        return self._trainer.data_collator

    @property
    def is_main_process(self) -> bool:
        """Whether this process logs and warns."""
        return self._trainer.is_world_process_zero()

    @property
    def has_sharded_weights(self) -> bool:
        """Whether each process holds only a part of the weights (FSDP, DeepSpeed)."""
        return self._trainer.is_fsdp_enabled or self._trainer.is_deepspeed_enabled

    @property
    def is_pretraining(self) -> bool:
        """Whether the model has the pretraining objectives and their schedule."""
        return isinstance(self.model, CBViLAForPreTraining)

    @property
    def needs_momentum_encoder(self) -> bool:
        """Whether an objective learns from a momentum encoder and from nothing else."""
        return self.is_pretraining and self.model.needs("momentum_encoder")

    @property
    def draws_negatives(self) -> bool:
        """Whether the model draws negatives of image-text matching."""
        heads = CBViLAForPreTraining | CBViLAForImageTextRetrieval | CBViLAForQFormerPreTraining
        return isinstance(self.model, heads)
