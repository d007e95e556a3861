"""Collectives that treat the batches of all processes as one batch, for ITC and ITM negatives (Sec. III-C).

In distributed training every process calls these functions at the same points of its forward pass; local batches may
differ in size. Otherwise [`Processes.gather_sizes`] returns `None`, and its methods are never called.

Gradients equal those of a single process: the gradients of a tensor are summed at its owner, and each loss is scaled
([`Processes.loss_scales`]) so that the mean over processes, which DDP and FSDP take of gradients and the trainer of
logs, is the mean over the global batch.

Shapes: b pairs of this process, B pairs of all processes.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def several_processes() -> bool:
    """Returns whether training is distributed over more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class Processes:
    """Rank and batch sizes of all processes, as Python integers.

    Attributes:
        rank: Rank of this process.
        pairs: Number of pairs on each process.
        first: Index of this process's first pair in the global batch.
        length: Number of tokens of the longest text on any process.
        captions: Largest number of known captions per image on any process.
    """

    def __init__(self, rank: int, pairs: list[int], length: int, captions: int) -> None:
        self.rank, self.pairs, self.length, self.captions = rank, pairs, length, captions
        self.first = sum(pairs[:rank])

    @staticmethod
    def gather_sizes(training: bool, texts: Tensor, known_text_ids: Tensor | None = None) -> "Processes | None":
        """Exchanges batch sizes across ranks, given the local texts (b, L, …) and, optionally, known ids (b, C).

        Returns `None` if there is only one process, and outside training, where losses always cover the local batch.
        """
        if not training or not several_processes():
            return None
        return _gather_sizes(texts.shape[0], texts.shape[1], 0 if known_text_ids is None else known_text_ids.shape[1])

    def gather(self, rows: Tensor) -> Tensor:
        """Gathers rows (b, …) from all processes as (B, …), in rank order; only the first dimension may differ."""
        return _gather(rows, self.pairs, self.rank)

    def loss_scales(self, counts: Tensor) -> Tensor:
        """Returns factors (T,) for T local means over `counts` (T,) items each.

        The mean over processes of the scaled means is the mean over the items of all processes.
        """
        return _loss_scales(counts)

    def exchanges(self, *wanted: Tensor) -> list["RowExchange"]:
        """Returns, for each tensor (b,) of row indices into the global batch, an exchange that fetches these rows.

        How many rows each process sends depends on random draws, so the host waits for the device to read the counts.
        """
        return _plan_exchanges(self, torch.stack(wanted, dim=1))

    def pad_texts(self, texts: Tensor) -> Tensor:
        """Pads texts (b, L, …) with zeros to the length of the longest text on any process."""
        return F.pad(texts, (0, 0) * (texts.dim() - 2) + (0, self.length - texts.shape[1]))


class RowExchange:
    """Sends local rows to the processes that requested them and receives the rows requested here.

    Args:
        send: Indices of the local rows to send, grouped by receiver.
        send_sizes: Number of rows sent to each process.
        receive_sizes: Number of rows received from each process.
        order: (b,) index of each requested row among the received rows.
    """

    def __init__(self, send: Tensor, send_sizes: list[int], receive_sizes: list[int], order: Tensor) -> None:
        self.send, self.send_sizes, self.receive_sizes, self.order = send, send_sizes, receive_sizes, order

    def __call__(self, rows: Tensor, index: Tensor | None = None) -> Tensor:
        """Returns the requested rows (b, …) of all processes' `rows` (b, …), or `rows[index]` with an index (b,)."""
        return _exchange(rows, self.send if index is None else index.index_select(0, self.send), self)


@lru_cache(maxsize=1)
def _host_group(default_group: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    """Returns a process group on the CPU, so that exchanging sizes does not wait for a device."""
    if "cpu:" in str(dist.get_backend_config(default_group)):
        return default_group
    return dist.new_group(backend="gloo")


# These collectives need their sizes in Python: in distributed training, a compiled model has a graph break here.


@torch.compiler.disable
def _gather_sizes(pairs: int, length: int, captions: int) -> Processes:
    own = torch.tensor([pairs, length, captions])
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own, group=_host_group(dist.group.WORLD))
    all_pairs, lengths, all_captions = torch.stack(gathered).T.tolist()
    return Processes(dist.get_rank(), all_pairs, max(lengths), max(all_captions))


@torch.compiler.disable
def _gather(rows: Tensor, sizes: list[int], rank: int) -> Tensor:
    return _Gather.apply(rows, sizes, rank)


@torch.compiler.disable
@torch.no_grad()
def _loss_scales(counts: Tensor) -> Tensor:
    total = counts.clone()
    dist.all_reduce(total)
    return counts * dist.get_world_size() / total.clamp_min(1)


@torch.compiler.disable
@torch.no_grad()
def _plan_exchanges(processes: Processes, wanted: Tensor) -> list[RowExchange]:
    ends = torch.tensor(processes.pairs).cumsum(0)
    receivers = torch.arange(len(processes.pairs)).repeat_interleave(torch.tensor(processes.pairs))
    exchanges = []
    for column in processes.gather(wanted).cpu().T.contiguous():
        owners = torch.bucketize(column, ends, right=True)
        sent, received = owners == processes.rank, owners[receivers == processes.rank]
        exchanges.append(
            RowExchange(
                (column[sent] - processes.first).to(wanted.device),
                torch.bincount(receivers[sent], minlength=len(ends)).tolist(),
                torch.bincount(received, minlength=len(ends)).tolist(),
                received.argsort(stable=True).argsort().to(wanted.device),
            )
        )
    return exchanges


@torch.compiler.disable
def _exchange(rows: Tensor, send: Tensor, exchange: RowExchange) -> Tensor:
    received = _SendRows.apply(rows.index_select(0, send), exchange.send_sizes, exchange.receive_sizes)
    return received.index_select(0, exchange.order)


class _Gather(torch.autograd.Function):
    """All-gather of batches of different sizes; the gradient of a row is the sum of its gradients on all processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], rank: int) -> Tensor:
        ctx.sizes, ctx.rank = sizes, rank
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.split(ctx.sizes)[ctx.rank], None, None


class _SendRows(torch.autograd.Function):
    """All-to-all of rows; the backward pass sends the gradients back to the rows' owners."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, send_sizes: list[int], receive_sizes: list[int]) -> Tensor:
        ctx.send_sizes, ctx.receive_sizes = send_sizes, receive_sizes
        received = rows.new_empty(sum(receive_sizes), *rows.shape[1:])
        dist.all_to_all_single(received, rows.contiguous(), receive_sizes, send_sizes)
        return received

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        returned = gradient.new_empty(sum(ctx.send_sizes), *gradient.shape[1:])
        dist.all_to_all_single(returned, gradient.contiguous(), ctx.send_sizes, ctx.receive_sizes)
        return returned, None, None
