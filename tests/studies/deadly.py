"""Work that kills the process over one point, and work that is killed once and then does."""

import os
import signal
from pathlib import Path

from pe_sim.studies.workers import Done, Task, work

POISON = 13  # a context


def die_over_poison(task: Task) -> Done:
    if any(settings["context"] == POISON for settings in task.points):
        os.kill(os.getpid(), signal.SIGKILL)
    return work(task)


def die_once(task: Task) -> Done:
    """Dies at the first task that comes; a file in the task's folder remembers it."""
    assert task.folder is not None
    try:
        Path(task.folder, "died").touch(exist_ok=False)
    except FileExistsError:
        return work(task)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
