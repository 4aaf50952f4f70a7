"""Errors for people: mistakes that a user can mend are shown as a message, without a traceback."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum


class ExitCode(IntEnum):
    """What the status of a command says to the scripts and schedulers that start it again."""

    DONE = 0
    FAILED = 1  # an error with a traceback
    MISTAKE = 2  # in the command, the configuration or the data; the message says what to do
    INTERRUPTED = 75  # asked to stop, and everything is saved: EX_TEMPFAIL of sysexits.h, "try again later"
    HUNG = 76  # a step, a batch, an evaluation or a checkpoint took too long; the log has the stacks
    LOST_RANK = 77  # another process of the run ended or does not answer; its own log says why


class UserError(ValueError):
    """A mistake in a command, a configuration or a data set; its message says what to do."""

    exit_code = ExitCode.MISTAKE  # of the command that it ends


class MistakesError(UserError):
    """Several mistakes at once."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__("\n  - ".join([f"{len(texts)} things have to be mended:", *texts]))
        self.texts = texts


class Mistakes:
    """Collects mistakes, so that all are shown at once instead of one at a time."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Note one, once."""
        if text not in self._texts:
            self._texts.append(text)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Note the mistake that ends the block, if one does."""
        try:
            yield
        except MistakesError as error:
            for text in error.texts:
                self.add(text)
        except UserError as error:
            self.add(str(error))

    def refuse(self) -> None:
        """Raise if there are any.

        Raises:
            UserError: with all of them.
        """
        if len(self._texts) == 1:
            raise UserError(self._texts[0])
        if self._texts:
            raise MistakesError(self._texts)


class LostRankError(UserError):
    """Another process of the run has not come, has ended or does not answer."""

    exit_code = ExitCode.LOST_RANK


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not known, with the nearest known ones."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} {name!r}: {hint}")
