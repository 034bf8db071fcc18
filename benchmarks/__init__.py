"""What the add-ons cost, as ratios against plain SQLAlchemy in the same run."""
