"""The `williw` command line: one small file of commands for each subject; nobody imports it."""
