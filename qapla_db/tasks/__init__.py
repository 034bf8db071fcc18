"""Sessions in tasks, and the application in a task worker."""
