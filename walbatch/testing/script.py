"""Scripts of faults: which request is treated how, repeatably. Pure but for reading the file.

A script is a JSON array of steps, or an object with `steps`, and with `seed`, `rate` and `faults` for chance:

    [{"fault": "status", "status": 429, "retry_after": 3, "times": 2},
     {"fault": "reset", "commit": true, "endpoint": "/import"}]

    {"seed": 7, "rate": 0.1, "faults": [{"fault": "drip", "delay": "50ms"}, {"fault": "page", "status": 502}]}

Of the steps that are left, the first that fits the request's endpoint is played: `times` times (1 unless told
otherwise), or `for` a duration that begins with its first request. Where no step fits, chance decides.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from walbatch.testing.faults import OK, AnyFault, Fault
from walbatch.testing.files import parsed


class Script(BaseModel):
    """A scenario: steps in order, then faults by chance. The same seed and the same requests give the same faults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[AnyFault, ...] = ()
    seed: int = 0
    rate: float = Field(default=0.0, ge=0.0, le=1.0)
    """The share of requests that get one of `faults`."""
    faults: tuple[AnyFault, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_array(cls, value: Any) -> Any:
        return {"steps": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _keys_at_their_place(self) -> Self:
        for index, step in enumerate(self.steps):
            if "weight" in step.model_fields_set:
                raise ValueError(f"steps[{index}].weight: only 'faults' are weighted; a step has 'times' or 'for'")
        for index, fault in enumerate(self.faults):
            if fault.model_fields_set & {"times", "for_s"}:
                raise ValueError(f"faults[{index}]: 'times' and 'for' belong to steps; chance has 'weight'")
        if bool(self.rate) != bool(self.faults):
            raise ValueError("'rate' and 'faults' need each other")
        return self


def load_script(path: Path) -> Script:
    """Read a script. Raises: ConfigurationError naming the file, the step and the key."""
    return parsed(path, TypeAdapter(Script))


class Director:
    """Plays a script: says for each request what to do with it."""

    def __init__(self, script: Script) -> None:
        self._steps = [_Left(step) for step in script.steps]
        self._rate = script.rate
        self._faults: tuple[Fault, ...] = script.faults
        self._random = Random(script.seed)

    def next(self, endpoint: str, now_s: float) -> Fault:
        """Return what to do with a request that came to this endpoint now; `OK` if nothing is in store for it."""
        self._steps = [left for left in self._steps if not left.over(now_s)]
        for left in self._steps:
            if left.step.fits(endpoint):
                left.play(now_s)
                return left.step
        return self._by_chance(endpoint)

    def _by_chance(self, endpoint: str) -> Fault:
        fitting = [fault for fault in self._faults if fault.fits(endpoint)]
        if not fitting or self._random.random() >= self._rate:
            return OK
        return self._random.choices(fitting, [fault.weight for fault in fitting])[0]


class _Left:
    """What is left of a step."""

    def __init__(self, step: Fault) -> None:
        self.step = step
        self._times = step.times or 1
        self._until_s: float | None = None

    def play(self, now_s: float) -> None:
        if self.step.for_s is None:
            self._times -= 1
        elif self._until_s is None:
            self._until_s = now_s + self.step.for_s

    def over(self, now_s: float) -> bool:
        return self._times < 1 or (self._until_s is not None and now_s >= self._until_s)
