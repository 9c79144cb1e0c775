"""Notes outside the system which executions really happened: one line for each execution, appended in one write."""

import json
import os
import random
import time
import uuid

VARIABLE = "TIDELOG_TEST_WITNESS"


def note(kind: str, work: str, key: str, attempt: int) -> str:
    """Appends a line and returns its unique word, which tells a recorded result from the result of another execution."""
    word = uuid.uuid4().hex
    line = {"kind": kind, "work": work, "key": key, "attempt": attempt, "word": word, "at": time.time(), "pid": os.getpid()}
    descriptor = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)
    return word


def work_for(least_s: float, most_s: float) -> None:
    """Makes the work take some time, so that a kill hits unfinished work."""
    time.sleep(random.uniform(least_s, most_s))
