"""The commands of the command line, one module each; they hold no logic of their own."""
