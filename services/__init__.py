"""The seven services, the command line above them, and the three rooms they stand on."""
