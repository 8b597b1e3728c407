"""What a run leaves behind: verdicts, measurements, fidelity and, on failure, evidence."""
