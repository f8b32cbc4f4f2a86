"""The events of bench/compare: once as JSON lines for Kafka, once as arrays for the peers.

Users come evenly from a million, items by Zipf's law from a million. Half of the items are drawn
through a permutation that belongs to the user's group (50 groups), so that there is something to
learn. A history is ten more items drawn the same way.
"""

import json
from pathlib import Path

import numpy as np

ROWS = 1_000_000
CATEGORIES = 1_000
HISTORY = 10
GROUPS = 50
COLUMNS = ("user", "item", "category", "history")


def arrays(count: int, seed: int) -> dict[str, np.ndarray]:
    """`count` events: user, item and category `[count]`, history `[count, 10]`."""
    random = np.random.default_rng(seed)
    user = random.integers(0, ROWS, count)
    group = (user % GROUPS)[:, None]
    rank = (ROWS ** random.random((count, 1 + HISTORY))).astype(np.int64)
    # A multiplication by an odd number, modulo the next power of two, folded: cheap and one of a group.
    own = (rank * (2 * group * 7919 + 1) + group * 104_729) % ROWS
    item = np.where(random.random(rank.shape) < 0.5, rank, own) % ROWS
    return {
        "user": user,
        "item": item[:, 0].copy(),
        "category": item[:, 0] % CATEGORIES,
        "history": item[:, 1:].copy(),
    }


def log_q(items: np.ndarray, batch: int) -> np.ndarray:
    """Of each event's item: the logarithm of its expected copies in a batch, by exact counts."""
    counts = np.bincount(items, minlength=ROWS)
    return np.log(counts[items] * (batch / len(items))).astype(np.float32)


def prepare(directory: Path, count: int, seed: int) -> tuple[Path, Path]:
    """Files of the events, made unless they are there: JSON lines, and `.npz`."""
    directory.mkdir(parents=True, exist_ok=True)
    lines, packed = (directory / f"events-{count}-{seed}.{kind}" for kind in ("jsonl", "npz"))
    if not (lines.exists() and packed.exists()):
        events = arrays(count, seed)
        with open(lines, "w", encoding="ascii") as out:
            rows = zip(*(events[column].tolist() for column in COLUMNS))
            for time, row in enumerate(rows):
                event = dict(zip(COLUMNS, row), time_ms=1_700_000_000_000 + time)
                out.write(json.dumps(event, separators=(",", ":")) + "\n")
        np.savez(packed, **events)
    return lines, packed


if __name__ == "__main__":
    import sys

    lines, packed = prepare(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print(lines)
    print(packed)
