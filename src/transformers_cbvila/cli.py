"""The command line `cbvila`: parses and delegates; heavy imports wait until a command runs."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

PRETRAIN_EXAMPLE = """\
example:
  cbvila pretrain --config recipes/pretrain-tiny.yaml --train_data easy-vqa data/emoji --output_dir runs/tiny
  cbvila pretrain --config recipes/pretrain-tiny.yaml --train_data my_folder --caption_column text \\
      --output_dir runs/mine --max_steps 2000 --save_steps 500 --seed 1 --resume
  accelerate launch --num_processes 8 -m transformers_cbvila pretrain --config recipes/pretrain-base.yaml \\
      --train_data "pairs/*.parquet" --image_column image --caption_column captions --output_dir runs/base

my_folder holds pictures and a metadata.jsonl with lines like
  {"file_name": "cat.jpg", "text": "a cat on a sofa"}
The caption column may hold a list of captions instead. Everything not given is in the recipe or has the default below.
"""
INSPECT_EXAMPLE = """\
example:
  cbvila inspect cbvila-tiny --data data/emoji --split test --output emoji.json --page emoji.html
  cbvila inspect runs/mine --data easy-vqa --rerank_k 0

The figures say how many codes are used, what masked image modelling and the pixel head reach beside their floors, and
how often the right caption or image is found, by similarity and when matching orders the best --rerank_k candidates
anew. The page shows pictures drawn from visual words (the paper's Fig. 2), patches that share a code (Fig. 3) and maps
of codes; it is one file with everything in it.
"""
FINETUNE_EXAMPLE = """\
example:
  cbvila finetune retrieval --config recipes/finetune-retrieval-emoji.yaml --model cbvila-tiny \\
      --train_data data/emoji --eval_data data/emoji --output_dir runs/emoji --resume
  cbvila finetune vqa --model cbvila-tiny --train_data questions.jsonl --image_column photo \\
      --question_column question --answer_column answers --output_dir runs/vqa --num_train_epochs 5
  cbvila finetune entailment --model cbvila-tiny --train_data pairs.parquet --text_column hypothesis \\
      --label_column label --eval_data pairs_dev.parquet --output_dir runs/entailment
  cbvila finetune reasoning --model cbvila-tiny --train_data data --image_column left_image \\
      --image_column right_image --text_column sentence --label_column label --output_dir runs/reasoning

Everything not given is in the recipe or has its default: `cbvila finetune TASK --help` lists them. `--from_scratch`
is the baseline of random weights at the same budget.
"""
EVALUATE_EXAMPLE = """\
example:
  cbvila evaluate retrieval --model cbvila-tiny --data data/emoji --split test --output emoji.json
  cbvila evaluate vqa --model cbvila-tiny-easyvqa --data easy-vqa --train_data easy-vqa --output vqa.json
  cbvila evaluate reasoning --model runs/nlvr1 --data data/nlvr1 --split validation --protocol nlvr1 \\
      --output nlvr1.json

The file is flat JSON: each figure with its 95 % interval (_low, _high), what is reached without looking (_floor), and
what the protocol leaves open (metric, rerank_k, gallery_images …). `cbvila evaluate TASK --help` lists the options.
"""
DEMO_EXAMPLE = """\
example:
  cbvila demo --output_dir runs/demo
  cbvila demo --output_dir runs/demo-scratch --from_scratch
"""
PUBLISH_EXAMPLE = """\
example:
  cbvila publish runs/mine my-org/cbvila-birds --facts facts.yaml --private
  cbvila publish cbvila-tiny-easyvqa my-name/cbvila-tiny-easyvqa --output_dir staged

The folder's model is loaded in a process without this package and compared with the original, uploaded in one commit
with its code and a model card, and loaded once more from the Hub. --output_dir does all but the upload, without a
network. What the run did not record is in a file like this one:

  license: apache-2.0
  data:
    - {name: my_folder, what: 12 000 photographs of birds with captions, license: CC BY 4.0}
  limits: It knows birds of Europe, photographed by day.
  results:                  # [] where nothing was measured; other entries: recipe, codebook, language, base_model
    - {dataset: my_folder, metric: image_retrieval_r1, value: 0.31, floors: {chance: 0.001}}
"""

_TRACEBACK = "CBVILA_TRACEBACK"  # of the environment: errors are raised, and not said in a line


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Examples as they are written, and each option's default, which is the recipe's where `--config` names one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False) or action.default == [] or "default" in (action.help or "").lower():
            return action.help  # "None" tells nobody what happens; the text does, where there is something to say
        return super()._get_help_string(action)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `cbvila` and `python -m transformers_cbvila`; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    commands: dict[str, tuple[Callable[[list[str]], int], str]] = {
        "pretrain": (_pretrain, "pretrain on folders, Parquet files or Hub data sets of images and captions"),
        "finetune": (_finetune, "fine-tune for vqa, retrieval, entailment or reasoning"),
        "evaluate": (
            _evaluate,
            "measure a model on vqa, retrieval, entailment or reasoning, with floors and intervals",
        ),
        "inspect": (
            _inspect,
            "measure a pretrained model: codebook, MIM against its floors, retrieval; show its visual words",
        ),
        "demo": (_demo, "fine-tune the bundled checkpoint on easy-VQA, evaluate it and write a report"),
        "publish": (
            _publish,
            "put a model on the Hub with a card and its code, loadable without this package, too",
        ),
    }
    parser = argparse.ArgumentParser(
        prog="cbvila",
        description="CB-ViLA: vision-language models with a learned visual codebook.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<10} {text}" for name, (_, text) in commands.items())
        + f"\n\nAn error is one line, and the exit status 1; with {_TRACEBACK}=1 set there is its traceback, too.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=commands, metavar="COMMAND", help="one of the commands below")
    command = parser.parse_args(argv[:1]).command
    try:
        return commands[command][0](argv[1:])
    except (ValueError, OSError, ImportError) as error:  # what is wrong with data, options or this installation
        if os.environ.get(_TRACEBACK, "0") not in ("", "0"):
            raise
        print(f"cbvila {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The last checkpoint is kept: the same command goes on from it.", file=sys.stderr)
        return 130


def _parse(
    command: str,
    description: str,
    example: str,
    dataclasses: list[Any],
    argv: list[str],
    preset: Callable[[str | None], dict[str, Any]] | None = None,
) -> tuple:
    """Instances of the dataclasses from flags, over the recipe of `--config`, over their defaults.

    Args:
        preset: Gives the options that a `--protocol` sets, below those of the recipe.

    Raises:
        SystemExit: With a message, for unknown flags, unknown recipe entries and missing required options.
    """
    from transformers import HfArgumentParser, TrainingArguments

    trains = any(issubclass(part, TrainingArguments) for part in dataclasses)
    parser = HfArgumentParser(
        dataclasses,
        prog=f"cbvila {command}",
        usage=f"cbvila {command} [--config RECIPE.yaml] {'[--resume] ' if trains else ''}[OPTION VALUE ...]",
        description=description,
        epilog=example,
        formatter_class=_Help,
    )
    if trains:
        _list_own_options_first(parser)
        parser.add_argument("--resume", action="store_true", help="Go on from the last complete checkpoint, if any.")
    parser.add_argument(
        "--config",
        metavar="RECIPE.yaml",
        help="Recipe, by its file or, of this package's, its name: defaults for these options.",
    )
    from . import recipe_files as recipes

    recipe = _read_recipe(parser, argv)
    said = _said(parser, argv)
    kept = recipes.beside(recipe, said)
    protocol = {} if preset is None else _preset(parser, preset, kept, argv)
    parser.set_defaults(**protocol)
    for action in parser._actions:
        if action.dest in kept:
            action.required = False
    parser.set_defaults(**kept)
    for name, value in recipes.merged(kept, said).items():
        argv = [*argv, f"--{name}", json.dumps(value)]
    *instances, rest = parser.parse_args_into_dataclasses(argv, args_filename=None, look_for_args_file=False)
    for instance in instances:
        if hasattr(instance, "set_given"):
            instance.set_given({*protocol, *kept, *said})
    differing = recipes.differences(recipe, said) if recipe else []
    if differing and os.environ.get("RANK", "0") == "0":
        print("Other than the recipe:\n  " + "\n  ".join(differing), file=sys.stderr)
    return (*instances, rest)


def _said(parser: argparse.ArgumentParser, argv: list[str]) -> dict[str, Any]:
    """The options that are among the flags, with their values; none where help is asked for."""
    if {"-h", "--help"} & set(argv):
        return {}
    actions = [action for action in parser._actions if action.dest != "help"]
    before = [(action, action.default, action.required) for action in actions]
    for action in actions:
        action.default, action.required = argparse.SUPPRESS, False
    said = vars(parser.parse_known_args(argv)[0])
    for action, default, required in before:
        action.default, action.required = default, required
    said.pop("repeated_options", None)
    return said


def _preset(parser: argparse.ArgumentParser, preset: Callable, recipe: dict[str, Any], argv: list[str]) -> dict:
    """The options that the protocol of the flags, or of the recipe, sets."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--protocol", default=recipe.get("protocol"))
    try:
        return preset(first.parse_known_args(argv)[0].protocol)
    except ValueError as error:
        parser.error(str(error))


def _list_own_options_first(parser: argparse.ArgumentParser) -> None:
    """Puts the options that every training with transformers has into a section of their own, below ours."""
    from transformers import TrainingArguments

    inherited = {field.name for field in fields(TrainingArguments)} - {"output_dir", "max_steps"}
    section = parser.add_argument_group("options of transformers' TrainingArguments")
    options = parser._optionals._group_actions
    section._group_actions += [action for action in options if action.dest in inherited]
    options[:] = [action for action in options if action.dest not in inherited]


def _read_recipe(parser: argparse.ArgumentParser, argv: list[str]) -> dict[str, Any]:
    """The recipe of the flags, by the names of its options' fields and with values of their types."""
    from .recipe_files import read_recipe, typed

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    name = first.parse_known_args(argv)[0].config
    if name is None:
        return {}
    actions = {option.lstrip("-"): action for action in parser._actions for option in action.option_strings}
    try:
        recipe = read_recipe(name)
        unknown = sorted(set(recipe) - set(actions))
        if unknown:
            raise ValueError(f"the recipe has entries that are no option of this command: {', '.join(unknown)}")
        values = {}
        for option, value in recipe.items():
            action = actions[option]
            convert: Any = None if action.nargs == 0 else action.type or str
            values[action.dest] = typed(option, value, convert, action.nargs in ("+", "*"))
        return values
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _pretrain(argv: list[str]) -> int:
    from .training.arguments import CBViLATrainingArguments
    from .training.pretrain import PretrainingJob, pretrain

    job, args, rest = _parse(
        "pretrain", "Pretrain CB-ViLA.", PRETRAIN_EXAMPLE, [PretrainingJob, CBViLATrainingArguments], argv
    )
    if rest.resume:
        args.resume_from_checkpoint = "True"
    print(f"Trained model: {pretrain(job, args)}")
    return 0


def _task(command: str, example: str, argv: list[str]) -> str:
    """The task that a command is for; its own help, without one."""
    from .data.task_settings import SETTINGS

    parser = argparse.ArgumentParser(
        prog=f"cbvila {command}",
        usage=f"cbvila {command} TASK [--config RECIPE.yaml] [OPTION VALUE ...]",
        description=f"{command.capitalize()} a model for a task.",
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=SETTINGS, metavar="TASK", help=f"one of {', '.join(SETTINGS)}")
    return parser.parse_args(argv[:1]).task


def _task_parts(task: str, example: str) -> tuple[Any, str, Callable[[str | None], dict[str, Any]]]:
    """The settings class of a task, the end of its help, and what its protocols set."""
    from .data.task_settings import SETTINGS
    from .evaluation.protocols import PROTOCOLS, protocol_defaults

    named = "".join(f"\n  {name}: {p.text}" for name, p in PROTOCOLS.items() if p.task == task)
    lines = f"{example}\nprotocols (--protocol):{named}\n"
    return SETTINGS[task], lines, lambda name: protocol_defaults(task, name)


def _finetune(argv: list[str]) -> int:
    task = _task("finetune", FINETUNE_EXAMPLE, argv)
    from .training.arguments import CBViLATrainingArguments
    from .training.finetune import FinetuningJob, finetune

    settings_class, end, preset = _task_parts(task, FINETUNE_EXAMPLE)
    parts = [FinetuningJob, settings_class, CBViLATrainingArguments]
    job, settings, args, rest = _parse(f"finetune {task}", settings_class.__doc__, end, parts, argv[1:], preset)
    if rest.resume:
        args.resume_from_checkpoint = "True"
    print(f"Trained model: {finetune(task, job, settings, args)}")
    return 0


def _evaluate(argv: list[str]) -> int:
    task = _task("evaluate", EVALUATE_EXAMPLE, argv)
    from .evaluation.task_evaluation import EvaluationJob, evaluate_task

    settings_class, end, preset = _task_parts(task, EVALUATE_EXAMPLE)
    parts = [EvaluationJob, settings_class]
    job, settings, _ = _parse(f"evaluate {task}", settings_class.__doc__, end, parts, argv[1:], preset)
    _print_figures(evaluate_task(task, job, settings))
    if job.output is not None:
        print(f"Figures: {job.output}")
    return 0


def _demo(argv: list[str]) -> int:
    from .demo.easy_vqa import DemoJob, command_line, run_demo

    job, _ = _parse("demo", "Fine-tune, evaluate, ask, report.", DEMO_EXAMPLE, [DemoJob], argv)
    print(f"Report: {run_demo(job, command_line(argv))}")
    return 0


def _inspect(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="cbvila inspect",
        description="Measure a pretrained model on images with captions.",
        epilog=INSPECT_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="folder, Hub id, or the name of a bundled checkpoint")
    parser.add_argument("--data", required=True, help="folder, Parquet file, Hub id, or easy-vqa")
    parser.add_argument("--split", help="split of the data (default: test, else validation, else the only one)")
    parser.add_argument("--image_column", default="image")
    parser.add_argument("--caption_column", help="default: captions, caption or text, whichever there is")
    parser.add_argument(
        "--rerank_k", type=int, default=64, help="candidates per query that matching orders; 0: none (default: 64)"
    )
    parser.add_argument("--output", metavar="FILE.json", help="file to write the figures to")
    parser.add_argument("--page", metavar="FILE.html", help="file to write a page of pictures to")
    options = parser.parse_args(argv)

    from .bundled import checkpoint_source
    from .data.source_rows import usual_split
    from .data.sources import load_pairs
    from .evaluation.inspection import inspect_pretraining
    from .model.modeling_cbvila_pretraining import CBViLAForPreTraining
    from .model.processing_cbvila import CBViLAProcessor

    source = checkpoint_source(options.model)
    model, processor = CBViLAForPreTraining.from_pretrained(source), CBViLAProcessor.from_pretrained(source)
    split = options.split or usual_split([options.data])
    rows = load_pairs(options.data, split, options.image_column, options.caption_column)
    measured = inspect_pretraining(model, processor, rows, rerank_k=options.rerank_k)
    figures = {"data": Path(options.data).name, "split": split, **measured}
    _print_figures(figures)
    if options.output:
        Path(options.output).write_text(json.dumps(figures, indent=2) + "\n")
    if options.page:
        from .pages.codebook_page import write_codebook_page

        title, note = f"Inside the codebook of {options.model}", f"On {len(rows):,} images of {options.data}, {split}."
        print(f"Page: {write_codebook_page(options.page, model, processor, rows, measured, title, note)}")
    return 0


def _publish(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="cbvila publish",
        description="Put a model on the Hugging Face Hub.",
        epilog=PUBLISH_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="FOLDER_OR_RUN", help="model folder, run, or name of a bundled checkpoint")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="repository on the Hub; made if it is not there")
    parser.add_argument("--private", action="store_true", help="make a new repository that only its owners see")
    parser.add_argument("--facts", metavar="FILE.yaml", help="what the model card says and the run did not record")
    parser.add_argument("--card", metavar="README.md", help="a model card of your own instead")
    parser.add_argument("--commit_message", help="of the commit on the Hub")
    parser.add_argument("--output_dir", metavar="NEW_FOLDER", help="write the repository there and upload nothing")
    options = parser.parse_args(argv)

    from .hub.publishing import publish, stage_repository

    what = {"facts": options.facts, "card": options.card}
    try:
        if options.output_dir:
            print(f"Staged: {stage_repository(options.source, options.repo_id, options.output_dir, **what)}")
            return 0
        where = {"private": options.private, "commit_message": options.commit_message}
        published = publish(options.source, options.repo_id, **what, **where)
    except KeyboardInterrupt as interrupt:
        print(interrupt.args[0] if interrupt.args else "Interrupted. Nothing was uploaded.", file=sys.stderr)
        return 130
    print(f"Published: {published.url} at commit {published.commit}")
    return 0


def _print_figures(figures: dict[str, Any]) -> None:
    from .evaluation.figure_lines import figure_lines

    print("\n".join(figure_lines(figures)))
