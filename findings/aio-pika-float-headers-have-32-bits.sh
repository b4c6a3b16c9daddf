#!/usr/bin/env bash
# aio-pika 10.2.1 with pamqp 4.0.1 (PyPI): a float in a message's headers is written with 32 bits (AMQP's type `f`), so
# a time of today in seconds is kept to 128 s only. kombu 5.7.0 writes the same header with 64 bits (`d`).
# Guess: 64 bits, as a Python float has them, or an error, which pika 1.4.4 raises for every float.
# Seen: the deadline 1764428400.25 arrives as 1764428416.0, and two times a minute apart arrive as one.
# What follows: times and scores in headers are sent as integers (milliseconds) or as text. A consumer must not take a
# float header of an unknown publisher for exact, nor reckon a wait from it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet aio-pika==10.2.1 pamqp==4.0.1 kombu==5.7.0 amqp==5.4.2 pika==1.4.4
"$folder/venv/bin/python" - <<'END'
import aio_pika, pika
from amqp.basic_message import Message
from amqp.serialization import loads
from pika.exceptions import UnsupportedAMQPFieldException

def sent(headers):
    """The bytes of the properties that aio-pika writes, without the two bytes of the flags."""
    return aio_pika.Message(b"", headers=headers).properties.marshal()[2:]

def received(table):
    """The headers as py-amqp, kombu's library, reads them: it is not aio-pika's reading that loses digits."""
    return loads("F", table, 0)[0][0]

deadline = 1764428400.25
for value in (deadline, deadline + 60, 0.1):
    print(f"aio-pika: {value} arrives as {received(sent({'deadline': value}))['deadline']}")
for value in (deadline, deadline + 60):
    assert received(sent({"deadline": value}))["deadline"] == 1764428416.0, "this has changed"
assert received(sent({"deadline": 1764428400250}))["deadline"] == 1764428400250, "this has changed"
assert b"deadlinef" in sent({"deadline": deadline}), "this has changed"
kombu = Message(b"", application_headers={"deadline": deadline})._serialize_properties()
assert b"deadlined" in kombu, "this has changed"
print(f"kombu:    {deadline} arrives as {received(kombu[2:])['deadline']}")
assert received(kombu[2:])["deadline"] == deadline, "this has changed"
try:
    pika.BasicProperties(headers={"deadline": deadline}).encode()
    seen = "writes it"
except UnsupportedAMQPFieldException as error:
    seen = type(error).__name__
print("pika:    ", seen)
assert seen == "UnsupportedAMQPFieldException", "this has changed"
END
