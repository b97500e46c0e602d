"""Django's SQLite, with writers of all processes in one line."""
