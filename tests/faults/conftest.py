"""What trainings in these tests have in common."""

import sklearn.metrics  # noqa: F401  # here, so that no forked process takes the time to import it
