"""What several parts need and none of them owns: parameter groups, dtypes, files, random numbers."""
