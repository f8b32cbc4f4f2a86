"""The model of config/bench.toml in PyTorch, on events in memory: prints examples/s as JSON.

Towers and loss are one function, which `--mode compile` and `bf16` compile; lookups stay outside,
where sparse gradients need no graph. Tables are updated by torch's sparse Adagrad, or with
`--rowwise` by Millrace's row-wise rule (for the comparison of losses).
"""

import argparse
import json
import time

import events
import numpy as np
import torch
from torch import nn
from torch.nn import functional

DIM = 64
TEMPERATURE = 0.05
TABLE_RATE, TABLE_EPSILON, TABLE_SCALE = 0.05, 1e-8, 0.05
DENSE_RATE, DENSE_EPSILON = 0.01, 1e-5
LAST_STEPS = 50


def tower() -> nn.Sequential:
    widths = [2 * DIM, 256, 128, DIM]
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:]):
        linear = nn.Linear(inputs, outputs)
        bound = (6.0 / inputs) ** 0.5
        nn.init.uniform_(linear.weight, -bound, bound)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Tables(nn.Module):
    """Four tables; a lookup gives both towers' inputs."""

    def __init__(self) -> None:
        super().__init__()
        rows = {"user": events.ROWS, "history": events.ROWS, "item": events.ROWS}
        rows["category"] = events.CATEGORIES
        for name, count in rows.items():
            table = nn.EmbeddingBag(count, DIM, mode="mean", sparse=True)
            nn.init.uniform_(table.weight, -TABLE_SCALE, TABLE_SCALE)
            setattr(self, name, table)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = {name: getattr(self, name)(batch[name]) for name in batch if name != "log_q"}
        query = torch.cat([pooled["user"], pooled["history"]], 1)  # [batch, 128]
        return query, torch.cat([pooled["item"], pooled["category"]], 1)


class RowwiseAdagrad:
    """One accumulator a row: the mean of the squared gradient."""

    def __init__(self, tables: Tables) -> None:
        self.state = [(p, torch.zeros(len(p))) for p in tables.parameters()]

    def step(self) -> None:
        for weight, sums in self.state:
            gradient = weight.grad.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
            sums[rows] += values.square().mean(1)
            rate = TABLE_RATE / (sums[rows].sqrt() + TABLE_EPSILON)
            weight.data.index_add_(0, rows, -rate[:, None] * values)

    def zero_grad(self) -> None:
        for weight, _ in self.state:
            weight.grad = None


def in_batch_loss(query_tower, item_tower, query, item, items, log_q):
    u = functional.normalize(query_tower(query), dim=1)
    v = functional.normalize(item_tower(item), dim=1)
    logits = u @ v.T / TEMPERATURE - log_q  # [batch, batch]
    rows = torch.arange(len(items))
    twins = (items[:, None] == items[None, :]) & (rows[:, None] != rows[None, :])
    return functional.cross_entropy(logits.masked_fill(twins, -torch.inf).float(), rows)


def batches(path: str, size: int, plain: bool) -> list[dict[str, torch.Tensor]]:
    data = dict(np.load(path))
    count = len(data["item"]) // size * size
    log_q = events.log_q(data["item"], size)
    data["log_q"] = np.zeros_like(log_q) if plain else log_q
    for name in ("user", "item", "category"):
        data[name] = data[name][:, None]
    tensors = {name: torch.from_numpy(values[:count]) for name, values in data.items()}
    split = {name: values.split(size) for name, values in tensors.items()}
    return [dict(zip(split, parts)) for parts in zip(*split.values())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", help="the .npz file of experiments/peers/events.py")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--mode", choices=("eager", "compile", "bf16"), default="eager")
    parser.add_argument("--seconds", type=float, default=8.0, help="time to measure")
    parser.add_argument("--steps", type=int, help="train so many steps instead, for the loss")
    parser.add_argument("--plain", action="store_true", help="no correction by log q")
    parser.add_argument("--rowwise", action="store_true", help="row-wise Adagrad on the tables")
    args = parser.parse_args()
    torch.manual_seed(1)
    tables, towers = Tables(), nn.ModuleList([tower(), tower()])
    dense = torch.optim.Adagrad(towers.parameters(), lr=DENSE_RATE, eps=DENSE_EPSILON)
    if args.rowwise:
        sparse = RowwiseAdagrad(tables)
    else:
        sparse = torch.optim.Adagrad(tables.parameters(), lr=TABLE_RATE, eps=TABLE_EPSILON)
    loss_of = in_batch_loss if args.mode == "eager" else torch.compile(in_batch_loss)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.mode == "bf16")

    def step(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        query, item = tables(batch)
        with autocast:
            loss = loss_of(*towers, query, item, batch["item"][:, 0], batch["log_q"])
        loss.backward()
        for optimizer in (dense, sparse):
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    data = batches(args.events, args.batch, args.plain)
    if args.steps:
        losses = [step(data[number]).item() for number in range(min(args.steps, len(data)))]
        print(json.dumps({"steps": len(losses), "loss": float(np.mean(losses[-LAST_STEPS:]))}))
        return
    warm = 3
    for number in range(warm):
        step(data[number])
    began, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < args.seconds:
        step(data[(warm + done) % len(data)])
        done += 1
    print(json.dumps({"examples_per_s": done * args.batch / elapsed, "steps": done}))


if __name__ == "__main__":
    main()
