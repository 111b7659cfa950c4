"""What travels on the bus: frozen structs, the table of subjects, and the fold of a job's facts."""
