"""The subcommands, one module each: their options, in order of what they do, and exit codes."""
