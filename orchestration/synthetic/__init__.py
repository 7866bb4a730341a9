"""A seeded world of plausible patients, and two hospitals that write it down differently."""
