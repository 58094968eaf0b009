"""KTO: single answers with a thumb up or down; no pairs are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from verbal.contracts import Example
from verbal.errors import ConfigError

from .pairwise import Pairwise
from .refusals import require_labels

__all__ = ["KTO"]


@dataclass(frozen=True, kw_only=True)
class KTO(Pairwise):
    """Kahneman-Tversky optimisation on every distinct answer, right or wrong, through TRL's KTOTrainer.

    Source: KTO (arXiv 2402.01306, eq. 7 and 8). Differs: the rows are shuffled anew in each pass, and the mismatched
    answers of the KL estimate are taken from the batch as it comes, where TRL pairs them once and for all.
    """

    name: ClassVar[str] = "kto"
    format: ClassVar[str] = "kto"
    columns: ClassVar[tuple[str, ...]] = ("prompt", "completion", "label")

    loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    """`apo_zero_unpaired` has no KL estimate and can do with one row in memory."""
    desirable_weight: float | None = None
    """Of right answers. None: such that both labels weigh the same in all, if there are fewer right ones, else 1."""
    undesirable_weight: float | None = None
    """Of wrong answers. None: the same the other way round."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("desirable_weight", "undesirable_weight"):
            value = getattr(self, option)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{option} is {value}", where=option, todo="give a positive number")
        if self.loss == "kto" and (self.micro_batch or self.batch) < 2:
            raise ConfigError(
                "one row in memory: the KL estimate of kto pairs a prompt with another row's answer",
                where="micro_batch", todo="give 2 or more, or loss=apo_zero_unpaired",
            )  # fmt: skip

    def require(self, rows: Sequence[Example]) -> None:
        """Refuses rows that teach nothing.

        Raises:
            TrainError: no rows, or all labels are equal.
        """
        require_labels(rows, self.name)

    def trainer(self, settings: Mapping[str, Any], counts: Mapping[str, int], pad: int) -> dict[str, Any]:
        """TRL's KTOTrainer with these options; see `Pairwise.trainer`."""
        from trl.trainer.kto_config import KTOConfig
        from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

        up, down = weights_of(counts["right"], counts["wrong"], self.desirable_weight, self.undesirable_weight)
        args = KTOConfig(
            **settings, beta=self.beta, loss_type=self.loss, desirable_weight=up, undesirable_weight=down
        )  # fmt: skip
        inner = DataCollatorForUnpairedPreference(pad_token_id=pad)
        return {"base": KTOTrainer, "args": args, "collator": _Turned(inner) if self.loss == "kto" else inner}


@dataclass(frozen=True, slots=True)
class _Turned:
    """Gives each row the answer of the row before it, whose log-ratio under a foreign prompt estimates the KL."""

    inner: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        return self.inner([{**row, "KL_completion_ids": rows[i - 1]["completion_ids"]} for i, row in enumerate(rows)])


def weights_of(right: int, wrong: int, up: float | None = None, down: float | None = None) -> tuple[float, float]:
    """The weights of right and wrong answers: given ones as they are, others such that the rarer label counts as much.

    Source: KTO, eq. 8: the ratio of the summed weights lies in [1, 4/3]; here it is 1.

    >>> weights_of(10, 40), weights_of(40, 10), weights_of(10, 40, down=2.0)
    ((4.0, 1.0), (1.0, 4.0), (8.0, 2.0))
    """
    if up is not None and down is not None:
        return up, down
    if up is not None:
        return up, up * right / wrong
    if down is not None:
        return down * wrong / right, down
    return max(1.0, wrong / right), max(1.0, right / wrong)
