"""The report of one or several trainings, from the files in their folders.

run_folder reads them, figures and tables say what is shown, drawing and page how.
"""

from .json_lines import read_rows
from .page import write_report
from .pictures import require_matplotlib

__all__ = ["read_rows", "require_matplotlib", "write_report"]
