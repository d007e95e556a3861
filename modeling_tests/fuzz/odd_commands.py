"""Command lines as people type them: right ones, and what becomes of them by a slip or a wrong idea."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from odd_rows import source

NUMBERS = [
    "-1",
    "0",
    "1",
    "-0.5",
    "0.5",
    "nan",
    "inf",
    "-inf",
    "1e-3",
    "1e400",
    "999999999999",
    "",
    "x",
    "½",
    "1,2",
    "0x1",
]
TEXTS = [
    "",
    " ",
    "None",
    "null",
    "../..",
    ".",
    "-",
    "--",
    "\0",
    "😀",
    "nowhere",
    "o/n",
    "x" * 3000,
    "[1]",
    "{}",
    "a=b",
]
MAPPINGS = [
    "{",
    "[]",
    "null",
    "3",
    '{"nope": 1}',
    '{"codebook_size": -1}',
    '{"text_config": 3}',
    '{"codebook_size": "x"}',
]
MAPPINGS += [
    '{"vision_config": {"patch_size": 7}}',
    '{"multimodal_config": {"num_hidden_layers": -1}}',
    '{"dropout": NaN}',
]
SWITCHES = ["true", "false", "maybe", "", "2"]

PRETRAINING = {
    **dict.fromkeys(["max_length", "vocab_size", "shuffle_buffer", "distortions", "codebook_restart_grace"], NUMBERS),
    **dict.fromkeys(
        ["mlm_probability", "mlm_replace", "mlm_words_share", "mim_mask_ratio", "text_drop_prob"], NUMBERS
    ),
    "crop_scale": NUMBERS,
    **dict.fromkeys(["max_crop_scale", "rotation", "color_jitter", "outlines", "train_data_weights"], NUMBERS),
    **dict.fromkeys(["align_steps", "burn_in_steps", "mim_gate", "keyword_probability"], NUMBERS),
    **dict.fromkeys(["image_column", "caption_column", "keyword_columns", "model", "tokenizer", "preset"], TEXTS),
    **dict.fromkeys(["alternate_updates", "negative_hardening", "train_data"], TEXTS + NUMBERS),
    **dict.fromkeys(["flip", "streaming", "mlm_from_start", "codebook_init", "skip_bad_rows"], SWITCHES),
    **dict.fromkeys(["eval_rows", "eval_rerank_k"], NUMBERS),
    **dict.fromkeys(["eval_data", "eval_split"], TEXTS),
    "model_config": MAPPINGS,
}
TRAINER = {
    **dict.fromkeys(["learning_rate", "num_train_epochs", "per_device_train_batch_size", "warmup_steps"], NUMBERS),
    **dict.fromkeys(["seed", "save_steps", "logging_steps", "weight_decay", "max_grad_norm", "adam_beta1"], NUMBERS),
    **dict.fromkeys(["label_smoothing_factor", "gradient_accumulation_steps", "save_total_limit"], NUMBERS),
    **dict.fromkeys(["lr_scheduler_type", "optim", "save_strategy", "eval_strategy", "report_to"], TEXTS),
    **dict.fromkeys(["resume_from_checkpoint", "output_dir", "metric_for_best_model"], TEXTS),
    **dict.fromkeys(["remove_unused_columns", "group_by_length", "load_best_model_at_end", "bf16"], SWITCHES),
    "lr_scheduler_kwargs": MAPPINGS,
    "max_steps": ["0", "-5", "nan", "x", ""],
}
TASK = {
    **dict.fromkeys(["image_column", "image_id_column", "image_data", "where", "model", "protocol"], TEXTS),
    **dict.fromkeys(["skip_bad_rows"], SWITCHES),
    **dict.fromkeys(["max_length"], NUMBERS),
}
OF_TASK = {
    "vqa": {**dict.fromkeys(["question_column", "answer_column", "answer_list"], TEXTS), "answer_k": NUMBERS},
    "retrieval": {"caption_column": TEXTS, "rerank_k": NUMBERS, "own_captions_only": SWITCHES},
    "entailment": {"text_column": TEXTS, "label_column": TEXTS, "class_names": TEXTS},
    "reasoning": {"text_column": TEXTS, "label_column": TEXTS, "image_parts": NUMBERS, "image_gap": NUMBERS},
}
FINETUNING = {
    **dict.fromkeys(["image_size", "dropout", "closed_questions", "rotation", "crop_scale"], NUMBERS),
    **dict.fromkeys(["train_split", "eval_split", "eval_data", "train_data"], TEXTS),
    "from_scratch": SWITCHES,
}
EVALUATION = {"batch_size": NUMBERS, "seed": NUMBERS, "split": TEXTS, "data": TEXTS, "output": TEXTS, "folder": TEXTS}
INSPECTION = {"data": TEXTS, "split": TEXTS, "image_column": TEXTS, "caption_column": TEXTS, "rerank_k": NUMBERS}
PUBLISHING = {"facts": TEXTS, "card": TEXTS, "output_dir": TEXTS, "commit_message": TEXTS}

COLUMNS = {
    "vqa": ["--question_column", "question", "--answer_column", "answers"],
    "retrieval": ["--caption_column", "text"],
    "entailment": ["--text_column", "hypothesis", "--label_column", "label"],
    "reasoning": ["--text_column", "hypothesis", "--label_column", "truth"],
}


class Commands:
    """Draws command lines for one workspace.

    Args:
        models: Folders of tiny models by task, and `pretrained`.
        folder: Where data and outputs go.
    """

    def __init__(self, models: dict[str, str], folder: Path) -> None:
        self.models, self.folder = models, folder

    def draw(self, surface: str, draw: random.Random) -> list[str]:
        """A command line of a surface, such as `finetune`: usually with a mistake or two."""
        argv, options = getattr(self, f"_{surface}")(draw, self.folder / f"out{draw.randrange(10**9)}")
        for _ in range(draw.choice([0, 0, 1, 1, 1, 2])):
            mutate: Callable = draw.choice([self._odd_value] * 5 + [self._slip, self._drop, self._add, self._recipe])
            argv = mutate(draw, argv, options)
        return argv

    def _data(self, draw: random.Random) -> str:
        return source(draw, self.folder, spoilt=draw.random() < 0.35)

    def _pretrain(self, draw: random.Random, out: Path) -> tuple[list[str], dict]:
        argv = ["pretrain", "--train_data", self._data(draw), "--caption_column", "text", *self._training(out)]
        start = (
            ["--model", self.models["pretrained"]]
            if draw.random() < 0.7
            else ["--model_config", TINY, "--vocab_size", "60"]
        )
        return argv + start, PRETRAINING | TRAINER

    def _stream(self, draw: random.Random, out: Path) -> tuple[list[str], dict]:
        argv, options = self._pretrain(draw, out)
        return [*argv, "--streaming"], options

    def _finetune(self, draw: random.Random, out: Path) -> tuple[list[str], dict]:
        task = draw.choice(list(OF_TASK))
        argv = [
            "finetune",
            task,
            "--model",
            self.models["pretrained"],
            "--train_data",
            self._data(draw),
            *COLUMNS[task],
        ]
        if draw.random() < 0.3:
            argv += ["--eval_data", self._data(draw), "--eval_split", "train"]
        return argv + self._training(out), FINETUNING | TASK | OF_TASK[task] | TRAINER

    def _evaluate(self, draw: random.Random, out: Path) -> tuple[list[str], dict]:
        task = draw.choice(list(OF_TASK))
        model = self.models[task if draw.random() < 0.8 else draw.choice(list(self.models))]
        argv = [
            "evaluate",
            task,
            "--model",
            model,
            "--data",
            self._data(draw),
            *COLUMNS[task],
            "--output",
            f"{out}.json",
        ]
        return argv, EVALUATION | TASK | OF_TASK[task]

    def _inspect(self, draw: random.Random, out: Path) -> tuple[list[str], dict]:
        model = self.models["pretrained" if draw.random() < 0.8 else draw.choice(list(self.models))]
        argv = ["inspect", model, "--data", self._data(draw), "--caption_column", "text", "--output", f"{out}.json"]
        return argv + (["--page", f"{out}.html"] if draw.random() < 0.5 else []), INSPECTION

    def _publish(self, draw: random.Random, out: Path) -> tuple[list[str], dict]:
        facts = out.with_suffix(".yaml")
        known: dict[str, Any] = {
            "license": "mit",
            "data": [{"name": "x", "what": "y", "license": "z"}],
            "limits": "many",
        }
        known["results"] = []
        known |= {"recipe": "one step", "codebook": "16 codes"}
        for key in draw.sample(list(known), draw.choice([0, 1, 1, 2])):  # complete facts are staged: 20 seconds
            known[key] = draw.choice([None, 3, "", [], [3], {"a": 1}, [{"name": 1}], float("nan"), "x" * 3000])
        facts.write_text(yaml.safe_dump(known) if draw.random() < 0.9 else "a: [")
        name = draw.choice(["me/x"] * 20 + ["x", "me/x/y", "", "me/ü", "--", "x" * 200 + "/y", "me/x.git"])
        model = draw.choice([*self.models.values()] * 3 + ["cbvila-tinny", "nowhere", str(self.folder), "o/n"])
        return ["publish", model, name, "--facts", str(facts), "--output_dir", str(out)], PUBLISHING

    @staticmethod
    def _training(out: Path) -> list[str]:
        options = ["--max_steps", "1", "--per_device_train_batch_size", "2", "--report_to", "none", "--use_cpu"]
        return ["--output_dir", str(out), "--disable_tqdm", "true", "--save_strategy", "no", *options]

    @staticmethod
    def _odd_value(draw: random.Random, argv: list[str], options: dict) -> list[str]:
        name = draw.choice(list(options))
        value = draw.choice(options[name])
        return [*argv, f"--{name}={value}"] if draw.random() < 0.3 else [*argv, f"--{name}", value]

    @staticmethod
    def _slip(draw: random.Random, argv: list[str], options: dict) -> list[str]:
        place = draw.randrange(len(argv))
        word = argv[place]
        letter = draw.randrange(max(len(word), 1))
        return [*argv[:place], word[:letter] + draw.choice(["", "x", "-"]) + word[letter + 1 :], *argv[place + 1 :]]

    @staticmethod
    def _drop(draw: random.Random, argv: list[str], options: dict) -> list[str]:
        place = draw.randrange(len(argv))
        return argv[:place] + argv[place + draw.choice([1, 2]) :]

    @staticmethod
    def _add(draw: random.Random, argv: list[str], options: dict) -> list[str]:
        place = draw.randrange(len(argv) + 1)
        return [*argv[:place], draw.choice([*TEXTS, "-h", "--help", "--version", "-x", "--resume"]), *argv[place:]]

    def _recipe(self, draw: random.Random, argv: list[str], options: dict) -> list[str]:
        path = self.folder / f"recipe{draw.randrange(10**9)}.yaml"
        values = [None, True, 3, -1, 0.5, "x", [1], [], {"a": 1}, float("nan"), "1e-3", "2026-01-01", [[1]], [None]]
        entries = {draw.choice([*options, "max_stepz"]): draw.choice(values) for _ in range(draw.randint(1, 2))}
        path.write_text(
            draw.choice([yaml.safe_dump(entries)] * 6 + [json.dumps(entries), "- 1", "", "a: [", "\0", "3"])
        )
        return [*argv, "--config", str(path)]


TINY = json.dumps(
    {
        "vision_config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "image_size": 16,
            "patch_size": 8,
        },
        "text_config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "max_position_embeddings": 16,
        },
        "multimodal_config": {"num_hidden_layers": 1},
        "codebook_size": 8,
        "projection_dim": 8,
    }
)
