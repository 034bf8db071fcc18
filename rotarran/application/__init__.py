"""The application: its databases, its models, its pages."""
