"""The commands, one file for each subject; each is imported when it is used."""
