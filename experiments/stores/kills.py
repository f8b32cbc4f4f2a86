"""kill -9 of the publisher at random points: what do the readers of its topic see?

Versions come in order, none twice with another content, each whole; and who reads the compacted topic
late holds the same vectors as who was always there.
"""

import argparse
import json
import random
import tempfile
import threading
from pathlib import Path

from bench import Bench, Reader, binary, broker, no_broker, say


def check(followed: Reader, late: Reader) -> dict:
    """What must hold, by name, with figures; raises what does not."""
    versions = [marker["version"] for marker in followed.markers]
    order = [(marker["began_ms"], marker["step"]) for marker in followed.markers]
    assert order == sorted(order), f"not in order: {versions}"
    contents: dict[str, set] = {}
    for marker in followed.markers:
        contents.setdefault(marker["version"], set()).add(marker["state_digest"])
    assert all(len(digests) == 1 for digests in contents.values()), "a version twice with another content"
    for before, after in zip(followed.markers, followed.markers[1:]):
        assert after["previous"] == before["version"], f"{after['version']} follows {after['previous']}"
    for marker in followed.markers:
        spans = {int(partition): span for partition, span in marker["offsets"].items()}
        inside = [
            hashed for partition, offset, hashed in followed.places
            if partition in spans and spans[partition][0] <= offset < spans[partition][1]
        ]
        assert len(inside) == marker["sent"] + marker["tombstones"], f"{marker['version']} is not whole"
        assert f"{sum(inside) % 2**64:016x}" == marker["digest"], f"{marker['version']}: another content"
    assert followed.values == late.values, "a late reader holds something else"
    assert len(late.values) == followed.markers[-1]["vectors"], "not the vectors of the last version"
    return {
        "versions": len(versions),
        "full": sum(marker["full"] for marker in followed.markers),
        "vectors_at_the_end": len(late.values),
        "tombstones": followed.tombstones,
        "records_of_the_reader_that_was_there": len(followed.places),
        "records_of_the_late_reader": len(late.places),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=19592)
    parser.add_argument("--binary", help="millrace; default: built here")
    parser.add_argument("--longest-s", type=float, default=6.0, help="a publisher lives at most so long")
    args = parser.parse_args()
    program, draw = binary(args.binary), random.Random(args.seed)
    broker(args.port)
    try:
        with tempfile.TemporaryDirectory() as directory:
            result = kill(args, program, draw, Path(directory))
    finally:
        no_broker(args.port)
    print(json.dumps(result))


def kill(args, program: str, draw: random.Random, directory: Path) -> dict:
    sets = [
        "checkpoint.every_steps=2", "checkpoint.keep=2", "batch.size=256", "batch.linger_ms=100",
        # Items come and go, and most versions send only what has moved.
        "corpus.items_max=300", "corpus.tombstone_events=1500", "publish.full_every=3", "publish.moved_min=0.0005",
    ]
    bench = Bench(program, args.port, f"kills-{args.seed}", directory, sets)
    # So small and short-lived that they are compacted while this runs.
    compacted = ["cleanup.policy=compact", "segment.ms=3000", "min.cleanable.dirty.ratio=0.01",
                 "delete.retention.ms=1000", "max.compaction.lag.ms=3000"]
    bench.topic(bench.out, *compacted)
    bench.topic(bench.versions, "cleanup.policy=compact")
    bench.produce(4_000)
    followed, ended = Reader(bench.brokers, [bench.out, bench.versions]), threading.Event()
    follower = threading.Thread(target=followed.follow, args=(ended,))
    follower.start()
    try:
        for number in range(args.kills):
            bench.produce(700)
            after = bench.kill_at_random(draw, args.longest_s)
            say(f"killed {number + 1} of {args.kills} after {after:.2f} s, {len(followed.markers)} versions so far")
        bench.settle()
    finally:
        ended.set()
        follower.join()
    late = Reader(bench.brokers, [bench.out, bench.versions]).read_to_end()
    return {"kills": args.kills, "seed": args.seed, **check(followed, late)}


if __name__ == "__main__":
    main()
