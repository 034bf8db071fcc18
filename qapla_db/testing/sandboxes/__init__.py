"""The sandbox: all of an engine on one connection, in a transaction that is undone."""
