"""The report of a run: a page and pictures, made only from the files in the run's folder.

``examine`` tests a trained network on the machine that has the data; its result is saved in the run's
folder. ``write_report`` and ``compare_runs`` make reports from the folders, on any machine.
"""

from cnn.runs.report.evaluation import Evaluation, examine
from cnn.runs.report.page import Report, compare_runs, write_report

__all__ = ["Evaluation", "Report", "compare_runs", "examine", "write_report"]
