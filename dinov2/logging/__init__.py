"""What a run writes down: log lines, training metrics, and where else they go."""

import logging
import os
import sys
import threading
from pathlib import Path

from dinov2.distributed import get_global_rank, is_main_process
from dinov2.errors import UserError

from .helpers import MetricLogger, SmoothedValue
from .sinks import MetricSink, make_sinks

__all__ = ["MetricLogger", "MetricSink", "SmoothedValue", "log_descriptor", "make_sinks", "setup_logging"]

_FORMAT = "%(levelletter)s%(asctime)s %(process)s %(name)s %(filename)s:%(lineno)s] %(message)s"


def setup_logging(output: str | Path | None = None, *, level: int = logging.INFO) -> None:
    """Log to the console (main process only) and to a file of each process.

    Args:
        output: a run's folder, which gets logs/log.txt and logs/log.txt.rank{r}; or a file that ends
            with .txt or .log; or None for the console alone.
    Raises:
        UserError: if the file cannot be made there.
    """
    root = logging.getLogger()
    root.setLevel(level)
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    if is_main_process():
        root.addHandler(_configured(_ConsoleHandler()))
    if output is not None:
        try:
            file = _LogFile(_log_file(Path(output)), mode="a", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--output-dir {output} cannot be used: {error}") from error
        root.addHandler(_configured(file))
    logging.captureWarnings(True)


def log_descriptor() -> int:
    """Descriptor of this process's log file, for what is written without Python's help; standard error without one."""
    files = (handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler))
    return next((file.stream.fileno() for file in files if file.stream is not None), 2)


def _log_file(output: Path) -> Path:
    path = output if output.suffix in (".txt", ".log") else output / "logs" / "log.txt"
    if not is_main_process():
        path = path.with_name(f"{path.name}.rank{get_global_rank()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _configured(handler: logging.Handler) -> logging.Handler:
    handler.setFormatter(_Formatter(_FORMAT, datefmt="%Y%m%d %H:%M:%S"))
    return handler


class _ConsoleHandler(logging.Handler):
    """Writes to standard output, above a progress bar if one is drawn."""

    def __init__(self) -> None:
        """Take a lock of this process alone for progress bars.

        That of tqdm is shared with forked processes: one that is killed while it writes would keep it, and all others
        would wait for ever.
        """
        super().__init__()
        from tqdm import tqdm

        tqdm.set_lock(threading.RLock())

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "beside_bar", False):
            return
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:  # a viewer that goes, as `| head` does, ends no training
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError:  # nor does a full disk that has the output of a job
            return


class _LogFile(logging.FileHandler):
    """Goes on where there is room again; that there was none is said once."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Tell of an error of the file; others are logging's."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            sys.stderr.write(f"warning: {self.baseFilename} cannot be written ({error.strerror}): lines are missing\n")


class _Formatter(logging.Formatter):
    """DINOv2's line format: I20240131 12:00:00 4711 dinov2 file.py:12] message."""

    def format(self, record: logging.LogRecord) -> str:
        record.levelletter = record.levelname[0]
        # Names of files may be in no encoding that a log could have: their bytes are shown, as \xfc.
        return super().format(record).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
