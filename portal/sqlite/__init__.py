"""Django's SQLite, with the transactions of all processes in one line."""
