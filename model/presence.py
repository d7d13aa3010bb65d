"""Whether what an expression names is in the picture at all, judged by the winning anchor's score. NumPy alone."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

SMALLEST = 1e-7  # nearer to 0 or 1 a score in single precision has no logit


@dataclass(frozen=True)
class Presence:
    """A score's logit, scaled and shifted, is the logit of the probability (Platt, "Probabilistic Outputs for Support
    Vector Machines", 1999), where one expression in two names something in the picture."""

    scale: float
    offset: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """scores: float32, 0..1. Returns probabilities of the same shape, float32."""
        return (1 / (1 + np.exp(-(self.scale * logits(scores) + self.offset)))).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Presence":
        """Read what `save` wrote. Raises OSError, ValueError, KeyError or TypeError."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(float(content["scale"]), float(content["offset"]))


def logits(scores: np.ndarray) -> np.ndarray:
    """Scores in 0..1 as logits, float64."""
    kept = np.clip(scores.astype(np.float64), SMALLEST, 1 - SMALLEST)
    return np.log(kept) - np.log1p(-kept)
