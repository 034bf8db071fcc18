"""The command ``qapla-db``."""
