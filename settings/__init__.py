"""Settings of the reference application; ``local*.py`` are yours and not in version control."""
