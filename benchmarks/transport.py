"""Transport plans of CODIS beside a pretraining step of ALBEF's preset, in turns in one run.

A step with CODIS makes two plans, of images and of texts, over batch and queue.
"""

import torch
import torch.nn.functional as F
from measuring import clock, in_turns, parser, positive, show
from pretraining_step import TrainingStep, model_config, random_batch
from transformers import set_seed

from transformers_cbvila import CBViLAForPreTraining
from transformers_cbvila.model.transport_cbvila import ipot, sinkhorn


def main() -> None:
    """Prints the times of both solvers for two plans, and their shares of the step."""
    arguments = parser(__doc__, "python benchmarks/transport.py --codes 256 --queue 1024")
    arguments.add_argument("--size", choices=["tiny", "base"], default="base", help="tiny: recipes/pretrain-tiny.yaml")
    arguments.add_argument("--codes", type=positive, default=256, metavar="K", help="prototypes; default 256")
    arguments.add_argument("--queue", type=positive, default=1024, metavar="Q", help="pairs; default 1024")
    arguments.add_argument("--batch_size", type=positive, default=2, metavar="B", help="of the step; default 2")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    set_seed(0)
    config, _, tokens = model_config(options.size, "albef")
    model = CBViLAForPreTraining(config).train()
    device = torch.device("cpu")
    step = TrainingStep(model, random_batch(config, options.batch_size, tokens, device), torch.float32)
    features, prototypes = (
        F.normalize(torch.randn(number, config.projection_dim), dim=-1)
        for number in (options.batch_size + options.queue, options.codes)
    )
    similarity = features @ prototypes.T
    solvers = {"IPOT, 50 steps": ipot, "Sinkhorn, 3 steps": sinkhorn}
    tasks = {name: (lambda solve=solve: [solve(similarity) for _ in range(2)]) for name, solve in solvers.items()}
    times = in_turns({"step": step, **tasks}, options.rounds, clock(device))
    rows = {"pretraining step": f"{times['step']} CPU-s"}
    for name in solvers:
        share = times[name].median / times["step"].median
        rows[f"two plans, {name}"] = f"{times[name]} CPU-s, {share:.1%} of the step"
    show(rows)


if __name__ == "__main__":
    main()
