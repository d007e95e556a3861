"""Callbacks follow what is replaced in a trainer after they were built."""

import torch
from tiny import PATCH, pretraining_model, tiny_processor, tiny_rows
from tiny_trainer import pretrainer, training_arguments

from transformers_cbvila.data.collators import CBViLADataCollatorForPreTraining
from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.training.trainer import CBViLATrainer
from transformers_cbvila.training.training_images import image_batches


def test_context_callbacks_follow_the_trained_model(tmp_path):
    """With `model_init` transformers builds one model with the trainer, and another one when training begins."""
    trainer = CBViLATrainer(
        model_init=lambda: pretraining_model(),
        args=training_arguments(tmp_path, max_steps=2, queue_size=2, codebook_target_decay=0.5),
        train_dataset=ImageTextPairs(tiny_rows(8)),
        data_collator=CBViLADataCollatorForPreTraining(tiny_processor(), PATCH, max_length=16),
    )
    first = trainer.model
    trainer.train()
    assert trainer.model is not first and trainer.context.model is trainer.model
    assert trainer.model.cbvila.quantizer.is_fitted and not first.cbvila.quantizer.is_fitted
    start = first.cbvila.vision_model.embeddings.cls_token
    for average in (trainer.momentum.encoder.model.cbvila, trainer.codebook_callback.teacher.parts):
        vision_model = average.get_submodule("vision_model")
        assert not torch.equal(vision_model.embeddings.cls_token, start), "an average of what is trained"


def test_context_callbacks_read_the_current_dataset(tmp_path):
    trainer = pretrainer(tmp_path)
    trainer.train_dataset = ImageTextPairs(tiny_rows(4))
    epochs = []
    trainer.train_dataset.set_epoch = epochs.append
    trainer.state.epoch = 3.0
    trainer.data_callback.on_epoch_begin(trainer.args, trainer.state, trainer.control)
    assert epochs == [3]
    assert sum(len(batch.pixel_values) for batch in image_batches(trainer.context, 0)) == 4
