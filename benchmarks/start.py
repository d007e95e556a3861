"""Measures the start-up time of `import transformers_cbvila`, beyond transformers' own, and of the command line.

Prints CPU seconds of new processes, medians over rounds, and whether torch, transformers or model code was imported.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable

from measuring import parser

# The imports from transformers that registration needs: the Auto classes and the bases of what is registered.
THEIRS = """
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForMaskedImageModeling, AutoModelForPreTraining,
    AutoModelForVisualQuestionAnswering, AutoProcessor, AutoTokenizer, BertTokenizer, PreTrainedConfig,
    ProcessorMixin, pipelines,
)
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
"""
IMPORT = f"""
import json, sys, time
{THEIRS}
before = time.process_time()
import transformers_cbvila
seconds = time.process_time() - before
"""
COMMAND = """
import atexit, json, runpy, sys, time
def report():
    seconds = time.process_time()
    print(json.dumps({"seconds": seconds, "loaded": sorted(sys.modules)}))
atexit.register(report)
sys.argv = ["-m", *sys.argv[1:]]
sys.orig_argv = [sys.executable, "-m", "transformers_cbvila", *sys.argv[1:]]
runpy.run_module("transformers_cbvila", run_name="__main__")
"""
REPORT = '\nprint(json.dumps({"seconds": seconds, "loaded": sorted(sys.modules)}))\n'
COMMANDS = [["--version"], ["--help"], ["pretrian"], ["publish", "--help"], ["pretrain", "--help"]]


def fresh_process(code: str, arguments: list[str]) -> dict:
    """Runs code in a new interpreter and returns what it reports in the last line of its output."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(run: Callable[[], dict], rounds: int) -> tuple[float, str]:
    """Returns the median of CPU seconds, and which large modules were imported."""
    reports = [run() for _ in range(rounds)]
    loaded = reports[0]["loaded"]
    heavy = [name for name in ("torch", "transformers") if name in loaded]
    models = sum("transformers_cbvila.model.modeling" in name for name in loaded)
    heavy += [f"{models} model files"] if models else []
    return statistics.median(report["seconds"] for report in reports), ", ".join(heavy) or "nothing heavy"


def main() -> None:
    """Measures and prints the results."""
    made = parser(__doc__, "python benchmarks/start.py --rounds 5")
    options = made.parse_args()
    seconds, loaded = measured(lambda: fresh_process(IMPORT + REPORT, []), options.rounds)
    print(f"{'import transformers_cbvila, beyond transformers':<50}{seconds:8.3f} CPU-s   {loaded}")
    for words in COMMANDS:
        seconds, loaded = measured(lambda words=words: fresh_process(COMMAND, words), options.rounds)
        print(f"{' '.join(['cbvila', *words]):<50}{seconds:8.3f} CPU-s   {loaded}")


if __name__ == "__main__":
    main()
