"""The report of a run: a page and pictures, drawn from the files in the run's folder alone.

``examine`` looks at a trained network on its test set, where the data are; its result is saved in the
run's folder. ``write_report`` and ``compare_runs`` draw what the folders hold, on any machine.
"""

from cnn.runs.report.evaluation import Evaluation, examine
from cnn.runs.report.page import Report, compare_runs, write_report

__all__ = ["Evaluation", "Report", "compare_runs", "examine", "write_report"]
