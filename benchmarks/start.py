"""Measures how long the package takes to start: its import beyond transformers' own, a first answer, app and commands.

Prints CPU seconds of new processes, medians with the range of all rounds, and whether torch, transformers or model
code was imported.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

from measuring import Spread, parser

# What a process waits for, one after the other. The second are the imports from transformers that registration needs:
# the Auto classes and the bases of what is registered, which bring torch.
STAGES = {
    "import transformers": "import transformers",
    "its Auto classes and pipelines": """
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForMaskedImageModeling, AutoModelForPreTraining,
    AutoModelForVisualQuestionAnswering, AutoProcessor, AutoTokenizer, BertTokenizer, PreTrainedConfig,
    ProcessorMixin, pipelines,
)
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
""",
    "import transformers_cbvila": "import transformers_cbvila",
    "a pipeline of cbvila-tiny-easyvqa": """
ask = pipelines.pipeline(
    "visual-question-answering", model=transformers_cbvila.bundled_checkpoint("cbvila-tiny-easyvqa"), device="cpu"
)
""",
    "its first answer": """
from PIL import Image
ask(Image.new("RGB", (64, 64), "red"), "what color is the shape?")
""",
}
APP = {
    "torch": "import gc; gc.disable()  # as the command does\nimport torch",
    "transformers": STAGES["its Auto classes and pipelines"],
    "gradio, which the command imports beside models and index": "import gradio",
    "the app's code": "from transformers_cbvila.app import models, page, pictures, searching, serving",
    "its models": "loaded = models.load_models()",
    "its index": "scenes = pictures.scene_pictures()\nsearch = searching.PictureSearch(loaded.retriever, scenes)",
    "its page": "built = page.build_page(loaded, scenes, search)",
    "its first tab": "next(function.fn() for function in built.fns.values() if function.name == 'start')",
}
STAGE = """
start = time.process_time()
{code}
reports.append({{"seconds": time.process_time() - start, "loaded": sorted(sys.modules)}})
"""
IN_STAGES = "import json, sys, time\nreports = []\n{stages}\nprint(json.dumps(reports))"
COMMAND = """
import atexit, json, runpy, sys, time
def report():
    seconds = time.process_time()
    print(json.dumps([{"seconds": seconds, "loaded": sorted(sys.modules)}]))
atexit.register(report)
sys.argv = ["-m", *sys.argv[1:]]
sys.orig_argv = [sys.executable, "-m", "transformers_cbvila", *sys.argv[1:]]
runpy.run_module("transformers_cbvila", run_name="__main__")
"""
COMMANDS = [["--version"], ["--help"], ["pretrian"], ["publish", "--help"], ["pretrain", "--help"]]


def in_stages(codes: dict[str, str]) -> str:
    """Returns code that runs codes one after the other and reports on each."""
    return IN_STAGES.format(stages="".join(STAGE.format(code=code) for code in codes.values()))


def fresh_process(code: str, arguments: list[str]) -> list[dict]:
    """Runs code in a new interpreter and returns the reports in the last line of its output."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def show_measured(names: list[str], run: Callable[[], list[dict]], rounds: int) -> None:
    """Prints the CPU seconds of each stage of a process, and which large modules were imported until its end."""
    taken = [run() for _ in range(rounds)]
    for name, reports in zip(names, zip(*taken, strict=True), strict=True):
        loaded = reports[0]["loaded"]
        heavy = [module for module in ("torch", "transformers") if module in loaded]
        models = sum("transformers_cbvila.model.modeling" in module for module in loaded)
        heavy += [f"{models} model files"] if models else []
        seconds = Spread([report["seconds"] for report in reports])
        print(f"{name:<36}{str(seconds):>26} CPU-s   {', '.join(heavy) or 'nothing heavy'}", flush=True)


def main() -> None:
    """Measures and prints the results."""
    made = parser(__doc__, "python benchmarks/start.py --rounds 5")
    options = made.parse_args()
    show_measured(list(STAGES), lambda: fresh_process(in_stages(STAGES), []), options.rounds)
    if find_spec("gradio"):
        print("cbvila app, until its server starts:")
        show_measured(list(APP), lambda: fresh_process(in_stages(APP), []), options.rounds)
    for words in COMMANDS:
        show_measured(
            [" ".join(["cbvila", *words])], lambda words=words: fresh_process(COMMAND, words), options.rounds
        )


if __name__ == "__main__":
    main()
