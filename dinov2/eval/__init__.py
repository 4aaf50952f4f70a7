"""How good the features are on labelled tiles."""
