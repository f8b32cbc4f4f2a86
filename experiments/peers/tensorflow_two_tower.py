"""The model of config/bench.toml in TensorFlow, on events in memory: prints examples/s as JSON.

One `tf.function` a step; the optimizer is the one whose sparse update touches only the rows of the
batch (`tf.compat.v1.train.AdagradOptimizer`; Keras 3's makes the gradient dense).
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import events
import numpy as np
import tensorflow as tf

DIM = 64
TEMPERATURE = 0.05


def weights() -> tuple[dict[str, tf.Variable], list[list[tuple[tf.Variable, tf.Variable]]]]:
    rows = {"user": events.ROWS, "history": events.ROWS, "item": events.ROWS}
    rows["category"] = events.CATEGORIES
    uniform = tf.random.uniform
    tables = {n: tf.Variable(uniform((c, DIM), -0.05, 0.05)) for n, c in rows.items()}
    widths = [2 * DIM, 256, 128, DIM]
    layers = [
        [
            (
                tf.Variable(uniform((i, o), -((6 / i) ** 0.5), (6 / i) ** 0.5)),
                tf.Variable(tf.zeros(o)),
            )
            for i, o in zip(widths, widths[1:])
        ]
        for _ in range(2)
    ]
    return tables, layers


def run_tower(layers, x):
    for number, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        if number + 1 < len(layers):
            x = tf.nn.relu(x)
    return tf.math.l2_normalize(x, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", help="the .npz file of experiments/peers/events.py")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=8.0)
    args = parser.parse_args()
    tf.random.set_seed(1)
    tables, towers = weights()
    dense = [v for layers in towers for layer in layers for v in layer]
    of_tables = tf.compat.v1.train.AdagradOptimizer(0.05, initial_accumulator_value=1e-8)
    of_towers = tf.compat.v1.train.AdagradOptimizer(0.01, initial_accumulator_value=1e-8)

    def loss_of(user, item, category, history, log_q):
        lookup = tf.nn.embedding_lookup
        query = tf.concat(
            [lookup(tables["user"], user), tf.reduce_mean(lookup(tables["history"], history), 1)], 1
        )
        items = tf.concat([lookup(tables["item"], item), lookup(tables["category"], category)], 1)
        u, v = run_tower(towers[0], query), run_tower(towers[1], items)
        logits = tf.matmul(u, v, transpose_b=True) / TEMPERATURE - log_q
        rows = tf.range(tf.shape(item)[0])
        twins = (item[:, None] == item[None, :]) & (rows[:, None] != rows[None, :])
        logits = tf.where(twins, tf.constant(-1e9), logits)
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=rows, logits=logits)
        )

    @tf.function
    def step(*batch):
        with tf.GradientTape() as tape:
            loss = loss_of(*batch)
        names = list(tables)
        variables = [tables[n] for n in names] + dense
        gradients = tape.gradient(loss, variables)
        cut = len(names)
        of_tables.apply_gradients(zip(gradients[:cut], variables[:cut]))
        of_towers.apply_gradients(zip(gradients[cut:], variables[cut:]))
        return loss

    data = dict(np.load(args.events))
    data["log_q"] = events.log_q(data["item"], args.batch)
    count = len(data["item"]) // args.batch
    columns = [data[n] for n in ("user", "item", "category", "history", "log_q")]
    batches = [
        [tf.constant(c[i * args.batch : (i + 1) * args.batch]) for c in columns]
        for i in range(min(count, 256))
    ]
    for batch in batches[:3]:
        step(*batch)
    began, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < args.seconds:
        step(*batches[done % len(batches)]).numpy()
        done += 1
    print(json.dumps({"examples_per_s": done * args.batch / elapsed, "steps": done}))


if __name__ == "__main__":
    main()
