"""Sends the JSON lines of stdin to a topic of two partitions by user, with Confluent's serializers.

usage: produce.py BROKERS TOPIC REGISTRY json|avro|protobuf|json-schema

The second half is written with a second version of the schema, which is registered when it begins: it has
a field more, and others in another order.
"""

import json
import sys
import zlib

from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2


def avro(version, registry):
    fields = [
        {"name": "user", "type": "string"},
        {"name": "item", "type": ["null", "string"], "default": None},
        {"name": "category", "type": "string"},
        {"name": "time_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ]
    if version == 2:
        note = {"name": "note", "type": {"type": "map", "values": "double"}, "default": {}}
        fields = [note] + fields[::-1]
    schema = json.dumps({"type": "record", "name": "Event", "fields": fields})
    return AvroSerializer(registry, schema), lambda event: event | {"note": {"x": 0.5}}


def protobuf(version, registry):
    file = descriptor_pb2.FileDescriptorProto(
        name=f"event{version}.proto", package=f"shop{version}", syntax="proto3"
    )
    file.dependency.append(timestamp_pb2.DESCRIPTOR.name)
    if version == 2:
        # The message of events is no longer the file's first one.
        file.message_type.add(name="Note").field.add(name="text", number=1, type=9, label=1)
    message = file.message_type.add(name="Event")
    for number, name in enumerate(["user", "item", "category"], 1):
        message.field.add(name=name, number=number + 10 * version, type=9, label=1)
    message.field.add(
        name="time_ms", number=4, type=11, label=1, type_name=".google.protobuf.Timestamp"
    )
    pool = descriptor_pool.Default()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"shop{version}.Event"))
    serializer = ProtobufSerializer(kind, registry, {"use.deprecated.format": False})

    def event(event):
        time = timestamp_pb2.Timestamp()
        time.FromMilliseconds(event["time_ms"])
        return kind(**(event | {"time_ms": time}))

    return serializer, event


def json_schema(version, registry):
    schema = {"title": "Event", "type": "object", "properties": {"user": {"type": "string"}}}
    if version == 2:
        schema["properties"]["note"] = {"type": "string"}
    return JSONSerializer(json.dumps(schema), registry), lambda event: event | {"note": "x"}


def plain(version, registry):
    return lambda event, _: json.dumps(event).encode(), lambda event: event


def main(brokers, topic, url, form):
    makers = {"json": plain, "avro": avro, "protobuf": protobuf, "json-schema": json_schema}
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5})
    registry = SchemaRegistryClient({"url": url})
    # Each version is a subject's only one: what may follow on what is not asked here.
    context = [SerializationContext(f"{topic}-{version}", MessageField.VALUE) for version in (1, 2)]
    events = [json.loads(line) for line in sys.stdin]
    for version, half in enumerate([events[: len(events) // 2], events[len(events) // 2 :]]):
        serialize, shape = makers[form](version + 1, registry)
        for event in half:
            value = serialize(shape(event), context[version])
            partition = zlib.crc32(event["user"].encode()) % 2
            while True:
                try:
                    producer.produce(topic, value=value, partition=partition)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
    if producer.flush(60) > 0:
        sys.exit("not all records were delivered")


main(*sys.argv[1:])
