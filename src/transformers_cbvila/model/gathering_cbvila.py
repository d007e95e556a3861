"""The pairs of all processes as one batch: contrast and mismatches know more pairs than a device holds (Sec. III-C).

In training on several processes every one of them calls these functions at the same places of its forward pass, with
batches of any size. Elsewhere [`Processes.join`] gives `None`, and nothing here is called.

Gradients are those of one process: what several processes make of a tensor adds up at its owner, and each loss is
scaled ([`Processes.shares`]) such that the mean over processes, which DDP and FSDP take of gradients and the trainer
of logs, is the mean over the whole batch.

Shapes: b pairs of this process, B pairs of all.
"""

from functools import lru_cache

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class Processes:
    """Where the pairs of this process lie among those of all; `sizes` and `rank` are numbers on the host.

    Attributes:
        pairs: Pairs of each process.
        length: Tokens of the longest text.
        captions: Known captions of an image, at most.
    """

    def __init__(self, rank: int, pairs: list[int], length: int, captions: int):
        self.rank, self.pairs, self.length, self.captions = rank, pairs, length, captions
        self.first = sum(pairs[:rank])

    @staticmethod
    def join(training: bool, texts: Tensor, known_text_ids: Tensor | None = None) -> "Processes | None":
        """Meets the other processes, each with its texts (b, L, …) and, perhaps, known ids (b, C).

        `None` outside training, where losses are of the batch at hand on any number of processes, and where there is
        no other process.
        """
        if not training or not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
            return None
        return _meet(texts.shape[0], texts.shape[1], 0 if known_text_ids is None else known_text_ids.shape[1])

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (b, …) of all processes, (B, …), in the order of ranks; shapes agree but for the first size."""
        return _gather(rows, self.pairs, self.rank)

    def shares(self, counts: Tensor) -> Tensor:
        """Factors (T,) of means over `counts` (T,) things that make their mean over processes one over all things."""
        return _shares(counts)

    def exchanges(self, *wanted: Tensor) -> list["RowExchange"]:
        """For each list (b,) of rows of the whole batch, what fetches them from the processes that have them.

        Who sends how much depends on draws: to read these few numbers the host waits for its device.
        """
        return _plan(self, torch.stack(wanted, dim=1))

    def pad_texts(self, texts: Tensor) -> Tensor:
        """Texts (b, L, …) with zeros up to the longest of all processes."""
        return F.pad(texts, (0, 0) * (texts.dim() - 2) + (0, self.length - texts.shape[1]))


class RowExchange:
    """Sends rows of this process to those that want them and receives the rows it wants itself.

    Args:
        send: Rows of this process to send, by receiver.
        send_sizes, receive_sizes: How many go to and come from each process.
        order: (b,) the place of each wanted row among the received ones.
    """

    def __init__(self, send: Tensor, send_sizes: list[int], receive_sizes: list[int], order: Tensor):
        self.send, self.send_sizes, self.receive_sizes, self.order = send, send_sizes, receive_sizes, order

    def __call__(self, rows: Tensor, index: Tensor | None = None) -> Tensor:
        """The wanted rows (b, …) of what is `rows` (b, …) in each process; with an index (b,), `rows[index]`."""
        return _exchange(rows, self.send if index is None else index.index_select(0, self.send), self)


@lru_cache(maxsize=1)
def _host_group(default_group):
    """A group that passes numbers between hosts, so that learning a size does not wait for a device."""
    if "cpu:" in str(dist.get_backend_config(default_group)):
        return default_group
    return dist.new_group(backend="gloo")


# Collectives with sizes that Python must know: a compiled model has a graph break here, on several processes only.


@torch.compiler.disable
def _meet(pairs: int, length: int, captions: int) -> Processes:
    own = torch.tensor([pairs, length, captions])
    everyones = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, own, group=_host_group(dist.group.WORLD))
    all_pairs, lengths, all_captions = torch.stack(everyones).T.tolist()
    return Processes(dist.get_rank(), all_pairs, max(lengths), max(all_captions))


@torch.compiler.disable
def _gather(rows: Tensor, sizes: list[int], rank: int) -> Tensor:
    return _Gather.apply(rows, sizes, rank)


@torch.compiler.disable
@torch.no_grad()
def _shares(counts: Tensor) -> Tensor:
    total = counts.clone()
    dist.all_reduce(total)
    return counts * dist.get_world_size() / total.clamp_min(1)


@torch.compiler.disable
@torch.no_grad()
def _plan(processes: Processes, wanted: Tensor) -> list[RowExchange]:
    ends = torch.tensor(processes.pairs).cumsum(0)
    receivers = torch.arange(len(processes.pairs)).repeat_interleave(torch.tensor(processes.pairs))
    plans = []
    for column in processes.gather(wanted).cpu().T.contiguous():
        owners = torch.bucketize(column, ends, right=True)
        sent, received = owners == processes.rank, owners[receivers == processes.rank]
        plans.append(
            RowExchange(
                (column[sent] - processes.first).to(wanted.device),
                torch.bincount(receivers[sent], minlength=len(ends)).tolist(),
                torch.bincount(received, minlength=len(ends)).tolist(),
                received.argsort(stable=True).argsort().to(wanted.device),
            )
        )
    return plans


@torch.compiler.disable
def _exchange(rows: Tensor, send: Tensor, plan: RowExchange) -> Tensor:
    received = _SendRows.apply(rows.index_select(0, send), plan.send_sizes, plan.receive_sizes)
    return received.index_select(0, plan.order)


class _Gather(torch.autograd.Function):
    """All-gather of uneven batches; the gradient of a row is the sum of what all processes send back."""

    @staticmethod
    def forward(ctx, rows: Tensor, sizes: list[int], rank: int) -> Tensor:
        ctx.sizes, ctx.rank = sizes, rank
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[override]
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.split(ctx.sizes)[ctx.rank], None, None


class _SendRows(torch.autograd.Function):
    """All-to-all of rows; gradients travel back the same way."""

    @staticmethod
    def forward(ctx, rows: Tensor, send_sizes: list[int], receive_sizes: list[int]) -> Tensor:
        ctx.send_sizes, ctx.receive_sizes = send_sizes, receive_sizes
        received = rows.new_empty(sum(receive_sizes), *rows.shape[1:])
        dist.all_to_all_single(received, rows.contiguous(), receive_sizes, send_sizes)
        return received

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[override]
        returned = gradient.new_empty(sum(ctx.send_sizes), *gradient.shape[1:])
        dist.all_to_all_single(returned, gradient.contiguous(), ctx.send_sizes, ctx.receive_sizes)
        return returned, None, None
