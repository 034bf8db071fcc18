"""Settings modules that say nothing: the tests pass what they need."""
