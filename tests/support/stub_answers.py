"""Stands for clients/answers.py in an app without a task: it says who answers, and does what it is asked."""

import os
import signal
import sys
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, RecordDict

forgotten: list[int] = []


def answer(content: RecordDict, message_type: str, context: Context, spent: float = 0.0) -> RecordDict:
    asked = content.config_records["asked"]
    if "begun" in asked:
        Path(str(asked["begun"])).touch()
    time.sleep(float(str(asked.get("seconds", 0))))
    if os.getpid() != asked.get("survivor", os.getpid()):
        os.kill(os.getpid(), signal.SIGKILL)
    context.state["seen"] = ConfigRecord({"run": context.run_id})
    who = {
        "process": os.getpid(),
        "torch": "torch" in sys.modules,
        "type": message_type,
        "spent": spent,
        "forgotten": len(forgotten),
    }
    return RecordDict({**content, "who": ConfigRecord(who)})


def forget() -> None:
    forgotten.append(1)
