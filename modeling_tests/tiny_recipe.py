"""A recipe of a tiny pretraining, and the parser of `cbvila pretrain`."""

from transformers_cbvila.cli.job_options import parse_job
from transformers_cbvila.training.arguments import CBViLATrainingArguments
from transformers_cbvila.training.pretrain import PretrainingJob

TINY_RECIPE = {
    "model_config": {
        "vision_config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 16,
            "patch_size": 4,
        },
        "text_config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 16,
        },
        "multimodal_config": {"num_hidden_layers": 1},
        "codebook_size": 8,
        "projection_dim": 8,
    },
    "vocab_size": 60,
    "max_length": 12,
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": "1e-3",  # as YAML reads 1e-3: a string
    "logging_steps": 1,
    "save_steps": 2,
    "burn_in_steps": 0.5,
    "report_to": "none",
    "use_cpu": True,
}


def parse_pretrain(argv):
    """Returns the job, the training arguments and the rest of a command line of `cbvila pretrain`."""
    return parse_job("pretrain", "", "", [PretrainingJob, CBViLATrainingArguments], argv)
