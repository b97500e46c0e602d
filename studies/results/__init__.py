"""Results: what a referring clinician comes for, the newest and the gravest first, and a patient's course in time."""
