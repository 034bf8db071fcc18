"""What autogenerate compares, and how what it finds is written into revisions."""
