"""The command line: one short file per command, thin — parse, call the library, print."""
