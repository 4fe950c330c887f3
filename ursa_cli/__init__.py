"""The command line: parse, one core call, render."""
