#!/usr/bin/env python3
"""faiss and usearch on the rows that `scripts/experiment retrieval` hands over.

    nearest.py DIRECTORY DIM K faiss,usearch

One thread. A query's time is that of its thread and includes Python's call (some ten microseconds).
"""

import sys
import time
from pathlib import Path

import numpy


def load(path: Path, dim: int) -> numpy.ndarray:
    return numpy.fromfile(path, dtype=numpy.float32).reshape(-1, dim)


def exact(items: numpy.ndarray, queries: numpy.ndarray, k: int) -> list[set[int]]:
    found = []
    for query in queries:
        scores = items @ query
        found.append(set(numpy.argpartition(-scores, k)[:k].tolist()))
    return found


def line(name: str, search, queries: numpy.ndarray, truth: list[set[int]], k: int) -> None:
    times, recall = [], 0.0
    for query in queries:
        before = time.thread_time()
        ids = search(query)
        times.append(1000.0 * (time.thread_time() - before))
        if len(times) % 5 == 1:
            recall += len(truth[len(times) // 5] & set(map(int, ids))) / k
    times.sort()
    p50, p99 = times[len(times) // 2], times[int((len(times) - 1) * 0.99)]
    mean = sum(times) / len(times)
    print(
        f"{name:<28} recall@{k} {recall / len(truth):.4f}"
        f"  CPU ms {mean:.3f} (p50 {p50:.3f}, p99 {p99:.3f})",
        flush=True,
    )


def built(name: str, began: tuple[float, float]) -> None:
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    print(f"{name} built in {wall:.1f} s ({cpu:.1f} CPU-s)", flush=True)


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def with_faiss(items, queries, truth, k) -> None:
    import faiss

    lists = 2048 if len(items) > 300_000 else 512
    began = now()
    index = faiss.index_factory(items.shape[1], f"IVF{lists},SQ8,RFlat", faiss.METRIC_INNER_PRODUCT)
    index.train(items[:: max(1, len(items) // (lists * 40))])
    index.add(items)
    built(f"faiss IVF{lists},SQ8,RFlat", began)
    faiss.omp_set_num_threads(1)
    for probed in (24, 48, 64, 96):
        params = faiss.IndexRefineSearchParameters(
            k_factor=2, base_index_params=faiss.SearchParametersIVF(nprobe=probed)
        )
        search = lambda query: index.search(query[None], k, params=params)[1][0]
        line(f"faiss nprobe {probed}", search, queries, truth, k)


def with_usearch(items, queries, truth, k) -> None:
    from usearch.index import Index

    began = now()
    index = Index(
        ndim=items.shape[1],
        metric="ip",
        dtype="bf16",
        connectivity=16,
        expansion_add=64,
        expansion_search=100,
    )
    index.add(numpy.arange(len(items), dtype=numpy.uint64), items, threads=2)
    built("usearch bf16 M 16", began)
    for expansion in (100, 200, 400):
        index.expansion_search = expansion
        search = lambda query: index.search(query, k, threads=1).keys
        line(f"usearch ef {expansion}", search, queries, truth, k)


def main() -> None:
    directory, dim, k, names = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    items, queries = load(directory / "items.f32", dim), load(directory / "queries.f32", dim)
    truth = exact(items, queries[::5], k)
    for name in names.split(","):
        {"faiss": with_faiss, "usearch": with_usearch}[name](items, queries, truth, k)


main()
