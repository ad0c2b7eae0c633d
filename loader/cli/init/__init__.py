"""`loader init`: asks for the servers and tables, or reads an old script, and writes a config."""
