"""How fast Celery drains a filled queue of tasks that do nothing, with as many bytes in and out as our jobs have.

    CELERY_NOOP_BROKER=amqp://... CELERY_NOOP_BACKEND=redis://... celery_noop.py TASKS

Fills the queue, starts a worker of two processes, and prints a line of JSON: tasks a second from the first result to
the last. Acknowledgement is late, so that no task is lost with its worker; results go to database 15 of Redis.
"""

import json
import os
import subprocess
import sys
import time

import redis
from celery import Celery

BACKEND = os.environ["CELERY_NOOP_BACKEND"].rstrip("/").removesuffix("/0") + "/15"
RESULT = "x" * 1600

app = Celery("celery_noop", broker=os.environ["CELERY_NOOP_BROKER"], backend=BACKEND)
app.conf.update(
    task_acks_late=True,
    task_default_queue="bench-celery",
    worker_prefetch_multiplier=128,
    worker_send_task_events=False,
    result_expires=86_400,
)


@app.task(name="nothing")
def nothing(text):
    return RESULT


def until(store, count):
    """Waits for so many results; how many there are."""
    deadline = time.monotonic() + 300
    while (there := store.dbsize()) < count:
        if time.monotonic() > deadline:
            sys.exit(f"{there} of {count} results")
        time.sleep(0.005)
    return there


def main(tasks):
    store = redis.Redis.from_url(BACKEND)
    store.flushdb()
    app.control.purge()
    for _ in range(tasks):
        nothing.delay("x" * 450)
    command = [sys.executable, "-m", "celery", "--app", "celery_noop", "worker"]
    command += ["--concurrency", "2", "--loglevel", "ERROR"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    folder = os.path.dirname(os.path.abspath(__file__))
    worker = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        first = until(store, 1)
        began = time.monotonic()
        until(store, tasks)
        took = time.monotonic() - began
    finally:
        worker.terminate()
        worker.wait()
    store.flushdb()
    print(json.dumps({"tasks_per_s": (tasks - first) / took}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
