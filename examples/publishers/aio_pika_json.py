"""Publishes a job with aio-pika, which sets a random message_id, and takes the answer from a reply queue."""
import asyncio, json, os, uuid

import aio_pika

MODEL = "all-minilm-l6-v2"


async def main():
    job = {"v": 1, "id": str(uuid.uuid4()), "model": MODEL, "task": "embed", "input": "Water waits behind the gate."}
    async with await aio_pika.connect(os.environ["FOREBAY_AMQP_URL"]) as connection:
        channel = await connection.channel()  # with publisher confirms
        replies = await channel.declare_queue(exclusive=True)
        jobs = await channel.get_exchange("forebay.jobs", ensure=False)  # the fleet declares it
        message = aio_pika.Message(json.dumps(job).encode(), reply_to=replies.name, delivery_mode=2)
        await jobs.publish(message, routing_key=MODEL)
        async with replies.iterator(no_ack=True, timeout=60) as answers:
            result = json.loads((await anext(answers)).body)
    if result["state"] != "succeeded":
        raise SystemExit(result["error"]["message"])
    print(f"{result['state']}: {result['output']['dim']} numbers")


asyncio.run(main())
