"""The results of each class on a test set, as text for tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnn.support.text import percent
from cnn.training.metrics import F1

MOST_SHOWN = 20  # classes that a table or a confusion matrix shows completely
RATES = {"precision": "precision", "recall": "recall", "F1": "f1"}  # the columns, and the results of F1


class ClassResults:
    """The results of each class in a confusion matrix; the classes have ``names``."""

    def __init__(self, confusion: Any, names: Sequence[str]) -> None:
        self.confusion, self.names = np.asarray(confusion), names
        self.wrong = self.confusion * (1 - np.eye(len(names), dtype=int))
        self._rates = F1().result(self.confusion)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The cells of a table, a row for each class.

        A rate that is not defined is a dash: the precision of a class that is never predicted, and the recall
        of a class without images.
        """
        predicted = self.confusion.sum(axis=0)
        rows = []
        for label, result in enumerate(self._rates["per_class"]):
            of_what = {"precision": predicted[label], "recall": result["count"]}
            of_what["F1"] = sum(of_what.values())
            rates = {name: percent(result[key]) if of_what[name] else "-" for name, key in RATES.items()}
            most = int(self.wrong[label].argmax())
            mistake = f"{self.names[most]} ({self.wrong[label, most]:,})" if self.wrong[label, most] else ""
            images = f"{result['count']:,}"
            rows.append({"class": self.names[label], "images": images, **rates, "often taken for": mistake})
        return rows

    @property
    def means(self) -> dict[str, str]:
        """The cells of the last row: the means over the classes that have images or are predicted."""
        rates = {name: percent(self._rates[key]) for name, key in RATES.items()}
        return {"class": "mean", "images": f"{self.confusion.sum():,}", **rates, "often taken for": ""}

    def hardest(self, count: int) -> list[int]:
        """The labels of the classes with the lowest F1, of those that have images."""
        results = self._rates["per_class"]
        tested = [label for label, result in enumerate(results) if result["count"]]
        return sorted(tested, key=lambda label: float(results[label]["f1"]))[:count]

    @property
    def mistakes(self) -> list[tuple[str, str, str]]:
        """(True class, predicted class, images) for each pair with mistakes, the most frequent first."""
        pairs = np.argwhere(self.wrong)
        counts = self.wrong[tuple(pairs.T)]
        return [
            (self.names[true], self.names[predicted], f"{count:,}")
            for (true, predicted), count in (
                (pairs[place], counts[place]) for place in np.argsort(-counts, kind="stable")
            )
        ]
