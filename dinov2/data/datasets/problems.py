"""Everything that is wrong in a list, said at once instead of one at a time."""

from dinov2.errors import UserError

SHOWN = 5


class Problems:
    """Counts problems and keeps the first few to show."""

    def __init__(self) -> None:
        self.count = 0
        self._shown: list[str] = []

    def add(self, problem: str) -> None:
        """Note one, such as "row 7: the path is empty"."""
        self.count += 1
        if len(self._shown) < SHOWN:
            self._shown.append(problem)

    def refuse(self, what: str) -> None:
        """Raise if there are any.

        Args:
            what: begins the message, such as "list tiles.csv cannot be used".
        Raises:
            UserError: with the first few problems, one a line.
        """
        if self.count:
            more = [f"and {self.count - SHOWN:,} more"] if self.count > SHOWN else []
            raise UserError("\n  ".join([f"{what}:", *self._shown, *more]))
