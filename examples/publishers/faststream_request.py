"""Sends a job as a FastStream request. FastStream sets a random message_id, which does no harm."""
import asyncio, os, uuid

from faststream.rabbit import RabbitBroker, RabbitExchange

MODEL = "all-minilm-l6-v2"
JOBS = RabbitExchange("forebay.jobs", declare=False)  # the fleet declares it


async def main():
    job = {"v": 1, "id": str(uuid.uuid4()), "model": MODEL, "task": "embed", "input": "Water waits behind the gate."}
    async with RabbitBroker(os.environ["FOREBAY_AMQP_URL"]) as broker:
        reply = await broker.request(job, exchange=JOBS, routing_key=MODEL, persist=True, timeout=60)
        result = await reply.decode()
    if result["state"] != "succeeded":
        raise SystemExit(result["error"]["message"])
    print(f"{result['state']}: {result['output']['dim']} numbers")


asyncio.run(main())
