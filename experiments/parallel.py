"""One function over many arguments, in as many processes as a run asks for, with progress."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from joblib import Parallel, cpu_count, delayed

from experiments.study import Ask
from pe_sim.errors import InputError

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Done(Generic[_Result]):
    result: _Result


@dataclass(frozen=True, slots=True)
class _Refused:
    """What was said; errors with facts of their own do not come through from another process."""

    message: str


def in_order(act: Callable[..., _Result], tasks: Mapping[str, tuple[object, ...]], ask: Ask) -> Iterator[_Result]:
    """The results in the order of the tasks; a line of progress for each, by the name it has in `tasks`.

    Raises:
        InputError: of the first task that raises one.
    """
    jobs = min(ask.jobs or cpu_count(), len(tasks))
    with warnings.catch_warnings(), Parallel(n_jobs=jobs, return_as="generator") as parallel:
        warnings.filterwarnings("ignore", r"\d+ tasks which were")
        warnings.filterwarnings("ignore", "A worker stopped")  # joblib renews workers that have grown; nothing is lost
        found = parallel(delayed(_attempt)(act, given) for given in tasks.values())
        for label, each in zip(tasks, found, strict=True):
            if isinstance(each, _Refused):
                found.close()  # the tasks after it are not worth a warning
                raise InputError(each.message)
            ask.tell(label)
            yield each.result


def _attempt(act: Callable[..., _Result], given: tuple[object, ...]) -> _Done[_Result] | _Refused:
    try:
        return _Done(act(*given))
    except InputError as error:
        return _Refused(str(error))
