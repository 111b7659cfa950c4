"""The door: takes model requests and questions, says `ModelRequested`, ends jobs on command."""
