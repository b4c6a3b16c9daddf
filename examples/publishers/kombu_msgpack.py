"""Publishes a job with kombu's msgpack serializer and takes the answer from a reply queue."""
import os, uuid

from kombu import Connection, Queue

MODEL = "all-minilm-l6-v2"
job = {"v": 1, "id": str(uuid.uuid4()), "model": MODEL, "task": "embed", "input": "Water waits behind the gate."}
results = []


def receive(result, message):
    message.ack()
    results.append(result)


with Connection(os.environ["FOREBAY_AMQP_URL"], transport_options={"confirm_publish": True}) as connection:
    replies = Queue(f"replies.{job['id']}", exclusive=True)
    with connection.Consumer(replies, callbacks=[receive], accept=["msgpack"]):
        # The exchange's name, and no Exchange object: kombu would declare that, and the fleet has.
        connection.Producer(serializer="msgpack").publish(
            job, exchange="forebay.jobs", routing_key=MODEL, reply_to=replies.name
        )
        while not results:
            connection.drain_events(timeout=60)
result = results[0]
if result["state"] != "succeeded":
    raise SystemExit(result["error"]["message"])
print(f"{result['state']}: {len(result['output']['data']) // 4} numbers")
