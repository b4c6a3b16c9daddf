"""Embeds two sentences through Forebay, once in msgpack and once in JSON. `pip install -r requirements.txt` first."""
import json, os, struct, time, uuid

import msgpack, pika, redis

MODEL = "all-minilm-l6-v2"
TEXTS = ["A forebay is the pool in front of a turbine.", "Water waits there until the gates open."]
CODECS = {"application/msgpack": msgpack, "application/json": json}


def submit(channel, content_type):
    job = {"v": 1, "id": uuid.uuid4().hex, "model": MODEL, "task": "embed", "input": TEXTS}
    properties = pika.BasicProperties(content_type, message_id=job["id"], delivery_mode=2, type="forebay.job.v1")
    channel.basic_publish("forebay.jobs", MODEL, CODECS[content_type].dumps(job), properties, mandatory=True)
    return job["id"]


def vectors(store, job_id, content_type):
    deadline = time.monotonic() + 60
    while (body := store.get(f"forebay:result:{job_id}")) is None:
        if time.monotonic() > deadline:
            raise SystemExit(f"no result for {job_id} within 60 s")
        time.sleep(0.02)
    result = CODECS[content_type].loads(body)
    if result["state"] != "succeeded":
        raise SystemExit(result["error"]["message"])
    output = result["output"]
    return output.get("embeddings") or list(struct.iter_unpack(f"<{output['dim']}f", output["data"]))


channel = pika.BlockingConnection(pika.URLParameters(os.environ["FOREBAY_AMQP_URL"])).channel()
channel.confirm_delivery()  # from here on a publish returns only when the broker has the job
store = redis.Redis.from_url(os.environ["FOREBAY_REDIS_URL"])
jobs = {content_type: submit(channel, content_type) for content_type in CODECS}
packed, plain = (vectors(store, job_id, content_type) for content_type, job_id in jobs.items())
apart = max(abs(a - b) for one, other in zip(packed, plain, strict=True) for a, b in zip(one, other, strict=True))
if apart > 1e-5:
    raise SystemExit(f"msgpack and JSON differ by {apart}")
print(f"{len(packed)} vectors of {len(packed[0])} numbers, equal in msgpack and JSON (largest difference {apart:.1e})")
