"""Images with captions, and a trainer of four steps on them."""

from tiny import noise_image
from tiny_language import reading_model, reading_processor
from tiny_trainer import training_arguments

from transformers_cbvila import CBViLATrainer
from transformers_cbvila.data.conditional_generation_collator import CBViLADataCollatorForConditionalGeneration

# Of different lengths, so that a mean over rows is another than one over tokens.
CAPTIONS = ["a red dog", "a cat", "the left half of a blue dog and a cat", "this is it"]
EXAMPLES = [{"image": noise_image(seed=number), "text": text} for number, text in enumerate(CAPTIONS)]


def captioner(folder, model=None, trainer_class=CBViLATrainer, callbacks=(), **options):
    options = {"max_steps": 4, "train_sampling_strategy": "sequential"} | options
    return trainer_class(
        model=reading_model() if model is None else model,
        args=training_arguments(folder, **options),
        train_dataset=EXAMPLES,
        data_collator=CBViLADataCollatorForConditionalGeneration(reading_processor()),
        callbacks=list(callbacks),
    )
