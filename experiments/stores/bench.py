"""A broker, topics, a log, a trainer that is killed, and readers of what it publishes."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import xxhash
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

ROOT = Path(__file__).resolve().parent.parent.parent
# Nothing that is waited for takes longer, on a busy machine too: Kafka Connect alone starts in a minute.
PATIENCE_S = 600


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(command: list, **options) -> str:
    """Standard output of a command; its errors end up in the exception."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    return done.stdout


class Bench:
    """Topics of one name on a broker of ours, and the programs that use them."""

    def __init__(self, binary: str, port: int, name: str, directory: Path, sets: list[str]) -> None:
        self.binary, self.port, self.name, self.directory = binary, port, name, directory
        self.brokers = f"127.0.0.1:{port}"
        self.out, self.versions = f"{name}-out", f"{name}-versions"
        self.sets = [
            f"kafka.brokers={self.brokers}", f"kafka.topic={name}", f"kafka.dead_letter_topic={name}-dead",
            f"publish.topic={self.out}", f"publish.versions_topic={self.versions}",
            f"checkpoint.directory={directory}/checkpoints", "http.listen=", "device=cpu", *sets,
        ]
        self.events = 0
        self.topic(name)
        self.topic(f"{name}-dead")

    def topic(self, name: str, *settings: str) -> None:
        settings = [part for setting in settings for part in ("--config", setting)]
        run([ROOT / "scripts" / "kafka", "topic", name, *settings, "--port", self.port])

    def command(self, name: str, *arguments) -> list[str]:
        sets = [part for value in self.sets for part in ("--set", value)]
        return [self.binary, name, "--config", str(ROOT / "config" / "synthetic.toml"), *sets, *map(str, arguments)]

    def produce(self, events: int) -> None:
        """Appends to the log what people do in a synthetic world."""
        path = self.directory / "events.jsonl"
        words = ["synthesize", "--rate", 0, "--skip", self.events, "--events", events]
        path.write_text(run([self.binary, *words]))
        self.events += events
        run(self.command("produce", path))

    def start(self, log) -> subprocess.Popen:
        """A trainer that reads on and publishes."""
        return subprocess.Popen(self.command("train"), stdout=subprocess.DEVNULL, stderr=log)

    def newest(self) -> dict:
        """The newest marker, or nothing."""
        return Reader(self.brokers, [self.versions]).read_to_end().markers[-1:] or [{}]

    def kill_at_random(self, draw: random.Random, longest_s: float) -> float:
        """Starts a trainer and kills it, wherever it is."""
        after = draw.uniform(0.05, longest_s)
        with (self.directory / "train.log").open("a") as log:
            process = self.start(log)
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
            process.wait()
        return after

    def settle(self) -> dict:
        """Lets a trainer read to the end of the log and publish what it learned; the newest marker."""
        with (self.directory / "train.log").open("a") as log:
            process = self.start(log)
            deadline, quiet, last = time.monotonic() + PATIENCE_S, time.monotonic(), None
            # A trainer that has nothing to learn publishes what is durable, then nothing more.
            while time.monotonic() < deadline and (last is None or time.monotonic() - quiet < 15):
                time.sleep(1)
                newest = self.newest()[0].get("version")
                if newest != last:
                    last, quiet = newest, time.monotonic()
                if process.poll() is not None:
                    raise RuntimeError(f"the trainer ended: {(self.directory / 'train.log').read_text()[-2000:]}")
            process.send_signal(signal.SIGTERM)
            process.wait()
        return self.newest()[0]


def hashed(key: bytes, value: bytes | None) -> int:
    return xxhash.xxh3_64_intdigest(key if value is None else key + b"\0" + value)


@dataclass
class Reader:
    """What somebody holds who follows topics with read_committed."""

    brokers: str
    topics: list[str]
    values: dict[bytes, bytes] = field(default_factory=dict)
    markers: list[dict] = field(default_factory=list)
    # By version: the sum of its records' hashes, and how many there were.
    sums: dict[str, list[int]] = field(default_factory=dict)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    tombstones: int = 0

    def consumer(self) -> Consumer:
        consumer = Consumer({
            "bootstrap.servers": self.brokers, "group.id": "reader", "enable.auto.commit": False,
            "isolation.level": "read_committed", "enable.partition.eof": True,
        })
        assignment = []
        for topic in self.topics:
            found = consumer.list_topics(topic, timeout=10).topics[topic]
            assignment += [TopicPartition(topic, p, OFFSET_BEGINNING) for p in found.partitions]
        consumer.assign(assignment)
        self.open = {(part.topic, part.partition) for part in assignment}
        return consumer

    def read_to_end(self) -> "Reader":
        consumer = self.consumer()
        while self.open:
            self.take(consumer.poll(1.0))
        consumer.close()
        return self

    def follow(self, ended: threading.Event) -> None:
        consumer = self.consumer()
        while not ended.is_set() or self.open:
            self.take(consumer.poll(0.2))
        consumer.close()

    def take(self, message) -> None:
        if message is None:
            return
        place = (message.topic(), message.partition())
        if message.error():
            if message.error().code() != KafkaError._PARTITION_EOF:
                raise RuntimeError(str(message.error()))
            self.open.discard(place)
            return
        self.open.add(place)
        if message.topic() == self.topics[-1]:
            self.markers.append(json.loads(message.value()))
            return
        key, value = message.key(), message.value()
        self.places.append((message.partition(), message.offset(), hashed(key, value)))
        if value is None:
            self.tombstones += 1
            self.values.pop(key, None)
        else:
            self.values[key] = value


def broker(port: int) -> None:
    run([ROOT / "scripts" / "kafka", "start", "--port", port])


def no_broker(port: int) -> None:
    run([ROOT / "scripts" / "kafka", "stop", "--wipe", "--port", port])


def binary(given: str | None) -> str:
    if given:
        return given
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    run(["cargo", "build", "--release", "--quiet"], cwd=ROOT)
    return str(Path(target) / "release" / "millrace")
