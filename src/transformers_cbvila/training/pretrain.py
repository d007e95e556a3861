"""The `cbvila pretrain` job: data folders in, a pretrained CB-ViLA folder out."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers import set_seed

from ..data.collators import CBViLADataCollatorForPreTraining
from ..data.pairs import ImageTextPairs
from ..data.sources import concatenate, load_pairs, training_texts
from ..data.vocabulary import train_wordpiece
from ..model.configuration_cbvila import CBViLAConfig
from ..model.image_processing_pil_cbvila import CBViLAImageProcessorPil
from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
from ..model.processing_cbvila import CBViLAProcessor
from .arguments import CBViLATrainingArguments
from .checkpoints import last_complete_checkpoint
from .trainer import CBViLATrainer


@dataclass
class PretrainingJob:
    """What to pretrain on what; the rest is [`CBViLATrainingArguments`]."""

    train_data: list[str] = field(
        metadata={
            "help": "Folders, Parquet files or Hub ids with images and captions, or easy-vqa; several are mixed."
        }
    )
    image_column: str = field(default="image", metadata={"help": "Column with the images."})
    caption_column: str = field(
        default="caption", metadata={"help": "Column with the caption, or a list of captions, of an image."}
    )
    keyword_columns: list[str] = field(
        default_factory=list, metadata={"help": "Columns with keywords, some of which are added to the caption."}
    )
    model: str | None = field(
        default=None, metadata={"help": "Checkpoint to start from; without it, random weights of model_config."}
    )
    model_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of CBViLAConfig (JSON on the command line, a mapping in a recipe)."}
    )
    preset: str = field(default="recommended", metadata={"help": "recommended, or paper for its literal reading."})
    vocab_size: int = field(
        default=4000, metadata={"help": "Size of the WordPiece vocabulary trained on the texts, for random weights."}
    )
    max_length: int = field(default=30, metadata={"help": "Longest caption in tokens; longer ones are cut."})
    mlm_probability: float = field(default=0.15, metadata={"help": "Share of tokens to predict."})
    mlm_replace: float = field(
        default=0.8, metadata={"help": "Share of those that become [MASK]: 0.8 as in BERT, 1.0 as the paper writes."}
    )
    mim_mask_ratio: float = field(default=0.75, metadata={"help": "Share of patches to hide."})
    text_drop_prob: float = field(
        default=0.0, metadata={"help": "How often an image asks an empty caption for pixels and words."}
    )
    crop_scale: float = field(default=1.0, metadata={"help": "Smallest share of the image a random crop keeps."})
    flip: bool = field(default=False, metadata={"help": "Mirror every other image."})
    keyword_probability: float = field(default=0.5, metadata={"help": "How often keywords are added."})


def pretrain(job: PretrainingJob, args: CBViLATrainingArguments) -> Path:
    """Runs the job (or goes on with it, with `resume_from_checkpoint`) and returns the folder of the trained model."""
    set_seed(args.seed)
    output_dir = Path(args.output_dir or "trainer_output")
    sources = [
        load_pairs(name, "train", job.image_column, job.caption_column, job.keyword_columns) for name in job.train_data
    ]
    model, processor = _start(job, sources)
    pairs = ImageTextPairs(concatenate(sources), args.seed, job.crop_scale, job.flip, job.keyword_probability)
    trainer = CBViLATrainer(
        model=model,
        args=args,
        train_dataset=pairs,
        data_collator=CBViLADataCollatorForPreTraining(
            processor,
            model.config.vision_config.patch_size,
            mlm_probability=job.mlm_probability,
            mlm_replace=job.mlm_replace,
            mim_mask_ratio=job.mim_mask_ratio,
            text_drop_prob=job.text_drop_prob,
            max_length=job.max_length,
        ),
        processing_class=processor,
    )
    trainer.train(resume_from_checkpoint=_checkpoint(args, output_dir))
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        _write_record(output_dir, job, trainer, len(pairs))
    return output_dir


def _start(job: PretrainingJob, sources) -> tuple[CBViLAForPreTraining, CBViLAProcessor]:
    if job.model is not None:
        return CBViLAForPreTraining.from_pretrained(job.model), CBViLAProcessor.from_pretrained(job.model)
    fields = json.loads(job.model_config) if isinstance(job.model_config, str) else dict(job.model_config or {})
    text = dict(fields.pop("text_config", None) or {})
    tokenizer = train_wordpiece(
        training_texts(sources, job.train_data), job.vocab_size, text.get("max_position_embeddings", 512)
    )
    text |= {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    config = CBViLAConfig.from_preset(job.preset, text_config=text, **fields)
    side = config.vision_config.image_size
    image_processor = CBViLAImageProcessorPil(size={"height": side, "width": side})
    return CBViLAForPreTraining(config), CBViLAProcessor(image_processor, tokenizer)


def _checkpoint(args: CBViLATrainingArguments, output_dir: Path) -> str | bool | None:
    """The checkpoint to go on from; `True` means the last complete one, if there is any."""
    if args.resume_from_checkpoint in ("True", "true", True):
        return last_complete_checkpoint(output_dir)
    return args.resume_from_checkpoint


def _write_record(output_dir: Path, job: PretrainingJob, trainer: CBViLATrainer, num_pairs: int) -> None:
    """What was run, for the model card: the job, the arguments that matter, the last log."""
    args = trainer.args
    record = {
        # folder names only: where a folder lay on the machine that trained means nothing elsewhere
        "job": {**asdict(job), "train_data": [Path(name).name for name in job.train_data]},
        "pairs": num_pairs,
        "steps": trainer.state.global_step,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "learning_rate": args.learning_rate,
        "weight_decay": args.weight_decay,
        "seed": args.seed,
        "burn_in_steps": args.burn_in_steps,
        "negative_hardening": args.negative_hardening,
        "codebook_restart_threshold": args.codebook_restart_threshold,
        "logs": trainer.state.log_history,
    }
    (output_dir / "pretraining.json").write_text(json.dumps(record, indent=1))
