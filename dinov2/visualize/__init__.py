"""What trainings and models look like: the report of a run."""
