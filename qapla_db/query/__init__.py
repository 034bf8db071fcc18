"""One query interface: what a session and its queries can do beyond SQLAlchemy's own methods."""
