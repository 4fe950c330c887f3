"""One module a command, named as it is typed; each loads when it is called."""
